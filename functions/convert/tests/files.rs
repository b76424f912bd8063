//! Whole files, made by other programs (`tests/fixtures/pdf/make.py`) and by hand.

use astra_memory::pdf::{Answer, Refusal};

fn file(name: &str) -> Vec<u8> {
    let path = format!("{}/../../tests/fixtures/pdf/{name}.pdf", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A file of these objects, the catalogue first.
fn of(objects: &[&str]) -> Vec<u8> {
    let objects: Vec<String> = objects.iter().enumerate().map(|(n, object)| format!("{} 0 obj\n{object}\nendobj\n", n + 1)).collect();
    format!("%PDF-1.7\n{}trailer<</Root 1 0 R>>\n%%EOF\n", objects.concat()).into_bytes()
}

fn stream(dict: &str, content: &str) -> String {
    format!("<<{dict}/Length {}>>stream\n{content}\nendstream", content.len())
}

/// A page with this content, a font F and a form X (object 6).
fn page(content: &str, more: &[&str]) -> Vec<u8> {
    let mut objects = vec![
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>/XObject<</X 6 0 R>>>>>>",
    ];
    let content = stream("", content);
    objects.push(&content);
    objects.push("<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>");
    objects.extend(more);
    of(&objects)
}

fn text(content: &str) -> Answer {
    convert::read(page(content, &[&form("BT /F 10 Tf (in a form) Tj ET", 7)]))
}

fn form(content: &str, next: usize) -> String {
    stream(
        &format!("/Type/XObject/Subtype/Form/BBox[0 0 1 1]/Matrix[1 0 0 1 0 -30]/Resources<</Font<</F 5 0 R>>/XObject<</X {next} 0 R>>>>"),
        content,
    )
}

fn pages(texts: &[&str]) -> Answer {
    Answer::Pages(texts.iter().map(|text| (*text).to_owned()).collect())
}

#[test]
fn files_of_other_programs_say_what_they_say() {
    assert_eq!(
        convert::read(file("handbook")),
        pages(&[
            "Handbook\nRefunds\nRefunds are paid within thirty days after the parcel has come back to the warehouse in Rotterdam.\n\
             Plan Days\n\nBasic 30\n\nPro 14",
            "Parcels\nZeppelins carry parcels on Fridays — to Café Zürich, too.",
        ])
    );
    assert_eq!(convert::read(file("letter")), pages(&["Efficient fjords: Žluťoučký kůň, Ελληνικά, Русский."]));
    assert_eq!(convert::read(file("locked")), Answer::Refused(Refusal::Encrypted));
    assert_eq!(convert::read(file("scan")), Answer::Refused(Refusal::NoText));
}

#[test]
fn every_way_to_show_text_is_read() {
    for (content, says) in [
        ("BT /F 10 Tf 1 0 0 1 50 700 Tm (Re) Tj (funds) Tj ET", "Refunds"),
        ("BT /F 10 Tf 50 700 Td [(Re) 20 (funds) -400 (take)] TJ ET", "Refunds take"),
        ("BT /F 10 Tf 12 TL 50 700 Td (a) Tj T* (b) Tj (c) ' 5 1 (d) \" ET", "a\nb\nc\nd"),
        ("BT /F 10 Tf 50 700 Td (a) Tj 0 -12 TD (b) Tj T* (c) Tj ET", "a\nb\nc"),
        ("BT /F 10 Tf 8 Tw 50 700 Td (a b) Tj 0 Tw 50 Tz (c) Tj 100 Tz 3 Ts (d) Tj ET", "a bcd"),
        ("BT /F 10 Tf 50 700 Td (x) Tj ET q 2 0 0 2 0 0 cm BT 25 330 Td (y) Tj ET Q BT 50 640 Td (z) Tj ET", "x\n\ny\nz"),
        ("BT /F 10 Tf 3 Tr 50 700 Td (seen by machines) Tj ET", "seen by machines"),
        ("BT /F 10 Tf 0 30 Td (page) Tj ET /X Do", "page\n\nin a form"),
        ("BT /F 10 Tf 0 1 -1 0 50 50 Tm (up) Tj 0 -12 Td (wards) Tj ET", "up\nwards"),
        ("BT /F 10 Tf 50 700 Td <5A FC> Tj (\\374) Tj /G 10 Tf (no such font) Tj ET", "Züü"),
    ] {
        assert_eq!(text(content), pages(&[says]), "{content}");
    }
}

#[test]
fn work_without_end_is_refused() {
    let forms: Vec<String> = (7..30).map(|next| form(&"/X Do ".repeat(50), next)).collect();
    let forms: Vec<&str> = forms.iter().map(String::as_str).collect();
    assert_eq!(convert::read(page("/X Do ", &forms)), Answer::Refused(Refusal::TooLarge));
    // What draws itself.
    assert_eq!(convert::read(page("BT /F 10 Tf (a) Tj ET /X Do", &[&form("/X Do /X Do", 6)])), pages(&["a"]));
    // One long content on many pages.
    let page = "<</Type/Page/Parent 2 0 R/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>";
    let long = stream("", &format!("BT /F 10 Tf ({}) Tj ET", "words ".repeat(100_000)));
    let kids = (3..40).filter(|n| !(4..=5).contains(n)).map(|n| format!("{n} 0 R ")).collect::<Vec<_>>().concat();
    let kids = format!("<</Type/Pages/Kids[{kids}]/Count 35>>");
    let mut objects = vec!["<</Type/Catalog/Pages 2 0 R>>", &kids, page, &long, "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"];
    objects.extend([page; 34]);
    assert_eq!(convert::read(of(&objects)), Answer::Refused(Refusal::TooLarge));
}

#[test]
fn depth_and_circles_are_no_danger() {
    for deep in ["[", "<</A ", "(", "<</Kids["] {
        let many = deep.repeat(200_000);
        assert_eq!(text(&format!("BT /F 10 Tf (a) Tj ET {many}")), pages(&["a"]), "{deep}");
        let object = of(&["<</Type/Catalog/Pages 2 0 R>>", &many]);
        assert!(matches!(convert::read(object), Answer::Refused(_)), "{deep}");
    }
    for circle in [
        of(&["<</Type/Catalog/Pages 2 0 R>>", "<</Type/Pages/Kids[2 0 R 2 0 R]/Count 2>>"]),
        of(&["<</Type/Catalog/Pages 2 0 R>>", "3 0 R", "2 0 R"]),
        of(&["<</Type/Catalog/Pages 2 0 R>>", "<</Length 2 0 R>>stream\nx\nendstream"]),
    ] {
        assert!(matches!(convert::read(circle), Answer::Refused(_)));
    }
    for nothing in [&b""[..], b"%PDF-1.7", b"no PDF", &[0; 10_000]] {
        assert_eq!(convert::read(nothing.to_vec()), Answer::Refused(Refusal::Broken));
    }
}
