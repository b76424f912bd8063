use super::*;
use proptest::prelude::*;

fn markdown(text: &str) -> Vec<Chunk> {
    split(text, Format::Markdown)
}

fn split_by(text: &str, format: Format, size: usize, overlap: usize) -> Vec<Chunk> {
    in_pieces([text], Splitter::of(format, size, overlap))
}

/// What comes piece by piece, asked for as soon as it can be said.
fn in_pieces<'a>(pieces: impl IntoIterator<Item = &'a str>, mut splitter: Splitter) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    for piece in pieces {
        splitter.push(piece);
        chunks.extend(std::iter::from_fn(|| splitter.chunk()));
    }
    splitter.end();
    chunks.extend(std::iter::from_fn(|| splitter.chunk()));
    chunks
}

/// Sentences of about 50 bytes, each with a number of its own.
fn prose(from: usize, number: usize) -> String {
    (from..from + number).fold(String::new(), |text, n| text + &format!("This is the sentence with the number {n} of many. "))
}

#[test]
fn what_is_short_is_one_chunk() {
    let chunks = markdown("\n\n# Handbook\n\nHello.\n\n");
    assert_eq!((chunks.len(), chunks[0].text.as_str(), chunks[0].path().as_str()), (1, "# Handbook\n\nHello.", "Handbook"));
    assert_eq!(chunks[0].to_embed(), "Handbook\n\n# Handbook\n\nHello.");
    assert!(markdown("").is_empty() && markdown(" \n\0\n\t").is_empty());
    assert_eq!(markdown("  - a\0b")[0].text, "  - a b");
    assert_eq!(format!("{:?}", chunks[0]), "Chunk(0, 1 headings, 18 bytes)");
}

#[test]
fn headings_are_kept_and_nothing_is_repeated_across_them() {
    let text = format!("# Handbook\n\n## Refunds\n\n{}\n\n## Shipping\n\n{}", prose(0, 60), prose(100, 60));
    let chunks = markdown(&text);
    let paths: Vec<String> = chunks.iter().map(Chunk::path).collect();
    assert_eq!(paths, ["Handbook > Refunds", "Handbook > Shipping"]);
    assert!(chunks[1].text.starts_with("## Shipping\n\nThis is the sentence with the number 100"));
    let plain = split(&text, Format::Text);
    assert!(plain.iter().all(|chunk| chunk.heading.is_empty()));
}

#[test]
fn a_cut_between_sentences_repeats_whole_sentences() {
    let text = prose(0, 1_000);
    let chunks = split(&text, Format::Text);
    for pair in chunks.windows(2) {
        let shared = (0..=pair[1].text.len()).rev().find(|shared| pair[0].text.ends_with(&pair[1].text[..*shared])).unwrap();
        assert!((600..=800).contains(&shared), "{shared}");
        assert!(pair[0].text.ends_with("of many.") && pair[1].text.starts_with("This is"));
        assert!((3_800..=4_000).contains(&pair[0].text.len()), "{}", pair[0].text.len());
    }
    for n in 0..1_000 {
        let sentence = format!("This is the sentence with the number {n} of many.");
        assert!(chunks.iter().any(|chunk| chunk.text.contains(&sentence)), "{sentence}");
    }
}

#[test]
fn a_heading_stays_with_its_text() {
    // Two headings, one under the other, stand just before the end of what fits.
    let text = format!("# A\n\n{}\n\n## B\n\n### C\n\n{}", prose(0, 76), prose(100, 40));
    let chunks = markdown(&text);
    let begins = "## B\n\n### C\n\nThis is the sentence with the number 100";
    assert!(chunks.iter().any(|chunk| chunk.text.starts_with(begins) && chunk.path() == "A > B > C"), "{chunks:?}");
    assert!(chunks.iter().all(|chunk| !chunk.text.ends_with("## B")));
}

#[test]
fn code_is_cut_between_lines_and_its_comments_are_no_headings() {
    let code: String = (0..400).fold(String::new(), |text, n| text + &format!("# step {n}\n    run(\"step\", {n})\n"));
    let chunks = markdown(&format!("# Guide\n\n```sh\n{code}```\n"));
    assert!(chunks.len() > 2 && chunks.iter().all(|chunk| chunk.heading == ["Guide"]), "{chunks:?}");
    assert!(
        chunks.iter().all(|chunk| chunk.text.ends_with(')')
            || chunk.text.ends_with("```")
            || chunk.text.lines().last().unwrap().starts_with("# step"))
    );
    assert!(chunks[1..].iter().all(|chunk| chunk.text.starts_with("# step") || chunk.text.starts_with("    run(")));
}

#[test]
fn text_without_blanks_is_cut_between_characters_or_after_full_stops() {
    let chunks = split(&"é".repeat(5_000), Format::Text);
    assert!(chunks.iter().all(|chunk| chunk.text.len() <= 4_000 && chunk.text.chars().all(|c| c == 'é')) && chunks.len() >= 3);
    let chunks = split(&"これは文です。".repeat(1_000), Format::Text);
    assert!(chunks.iter().all(|chunk| chunk.text.ends_with('。') && chunk.text.starts_with('こ')), "{chunks:?}");
}

/// Pieces that documents are made of, the odd ones more often than documents have them.
fn document() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-zé日👋]{1,12}",
        "[ \t\n\r\u{a0}\0]{1,6}",
        prop_oneof![
            Just("# A\n"),
            Just("\n## Bé ##\n"),
            Just("\nC\n===\n"),
            Just("\n```\n"),
            Just("\n~~~\n"),
            Just("\n\n"),
            Just(". "),
            Just("。"),
            Just("\n- ")
        ]
        .prop_map(str::to_owned),
        Just(" ".repeat(40)),
        "(?s).{1,8}",
    ];
    proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn nothing_is_lost_and_nothing_is_too_long(text in document(), size in 16_usize..120, part in 0_usize..100, is_markdown: bool) {
        let overlap = part * (size / 2 - 1) / 100;
        let text = text.replace('\0', " ");
        let mut splitter = Splitter::of(if is_markdown { Format::Markdown } else { Format::Text }, size, overlap);
        splitter.push(&text);
        splitter.end();
        let parts: Vec<Range<usize>> = std::iter::from_fn(|| splitter.part()).collect();
        let mut said = 0;
        for part in &parts {
            prop_assert!(part.len() <= size && !text[part.clone()].trim().is_empty(), "{part:?}");
            // What lies between a part and the one before is blank; each says something new and repeats no more than it may.
            prop_assert!(part.start >= said || said - part.start <= overlap, "{part:?} {said}");
            prop_assert!(part.start < said || text[said..part.start].trim().is_empty());
            prop_assert!(part.end > said);
            said = part.end;
        }
        prop_assert!(text[said..].trim().is_empty());
    }

    #[test]
    fn chunks_are_the_parts_of_the_text_and_know_their_headings(text in document(), size in 16_usize..120) {
        let chunks = split_by(&text, Format::Markdown, size, size / 5);
        let whole = text.replace('\0', " ");
        for (position, chunk) in chunks.iter().enumerate() {
            prop_assert_eq!(chunk.position, position);
            prop_assert!(whole.contains(&chunk.text) && chunk.text.len() <= size);
            prop_assert!(chunk.heading.len() <= 6 && chunk.heading.iter().all(|heading| whole.contains(heading.as_str())));
        }
        let blanks = |text: &str| text.chars().filter(|c| !c.is_whitespace()).count();
        prop_assert!(chunks.iter().map(|chunk| blanks(&chunk.text)).sum::<usize>() >= blanks(&whole));
    }

    #[test]
    fn it_does_not_matter_how_a_document_comes(
        texts in proptest::collection::vec((document(), 0_usize..6_000), 1..12), size in 16_usize..5_000, cuts in proptest::collection::vec(0_usize..1_000, 0..20), is_markdown: bool,
    ) {
        // Some of it repeated until it is longer than what is looked ahead, some of it in one line.
        let text: String = texts.iter().map(|(text, length)| text.repeat(if text.is_empty() { 0 } else { length / text.len() + 1 })).collect();
        let format = if is_markdown { Format::Markdown } else { Format::Text };
        let mut places: Vec<usize> = cuts.iter().map(|cut| text.floor_char_boundary(cut * text.len() / 1_000)).chain([0, text.len()]).collect();
        places.sort_unstable();
        let pieces = places.windows(2).map(|pair| &text[pair[0]..pair[1]]);
        prop_assert_eq!(in_pieces(pieces, Splitter::of(format, size, size / 5)), split_by(&text, format, size, size / 5));
    }
}

#[test]
fn what_is_kept_of_a_document_is_what_is_looked_at() {
    for piece in ["a\n", "# A\n", " ", "\n", "a ", "é", "```\n", "a\n===\n\n", "# A\n\nThis is a sentence. This is another one.\n\n"] {
        let mut splitter = Splitter::new(Format::Markdown);
        let (mut kept, mut said) = (0, 0);
        let piece = piece.repeat(1_000);
        for _ in 0..1_000_000 / piece.len() {
            splitter.push(&piece);
            while let Some(chunk) = splitter.chunk() {
                said += chunk.text.len();
            }
            kept = kept.max(splitter.text.kept());
        }
        assert!(kept < 200_000, "{:?} {kept}", &piece[..4]);
        assert!(said > 900_000 || piece.trim().is_empty(), "{:?} {said}", &piece[..4]);
    }
}
