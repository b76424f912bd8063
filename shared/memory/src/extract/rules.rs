//! The extractor that needs no model: what a user said in a few plain forms of English. Deterministic; for the `local` model and for tests.
//!
//! Only what the *user* said, sentence by sentence, and only sentences that begin with one of the forms: "remember that …",
//! "I prefer …", "my name is …", "we decided …", "note: …". A question is never taken, nor what the assistant said.

use super::answer::sized;
use super::{Extracted, MAX_MEMORIES, Said, Speaker};
use crate::{Kind, Scope};

/// What may stand before a form without changing it.
const BEFORE: &[&str] = &["please", "and", "also", "so", "but", "ok", "okay", "hi", "hello", "well", "actually", "from now on"];

struct Form {
    begins: &'static str,
    kind: Kind,
    scope: Scope,
    /// Whether the beginning is a part of the memory ("I prefer tea"), or only says that there is one ("remember that …").
    whole: bool,
    /// What there is only one of, in words that its predecessor has too.
    replaces: Option<&'static str>,
}

const fn form(begins: &'static str, kind: Kind, scope: Scope, whole: bool) -> Form {
    Form { begins, kind, scope, whole, replaces: None }
}

/// The first that fits counts. Each ends with what must follow its words, so that "noted" is no "note".
const FORMS: &[Form] = &[
    form("remember that ", Kind::Fact, Scope::User, false),
    form("remember: ", Kind::Fact, Scope::User, false),
    form("remember, ", Kind::Fact, Scope::User, false),
    form("don't forget that ", Kind::Fact, Scope::User, false),
    form("do not forget that ", Kind::Fact, Scope::User, false),
    form("note: ", Kind::Note, Scope::User, false),
    form("note that ", Kind::Note, Scope::User, false),
    form("i prefer ", Kind::Preference, Scope::User, true),
    form("i'd prefer ", Kind::Preference, Scope::User, true),
    form("i would prefer ", Kind::Preference, Scope::User, true),
    form("my preference is ", Kind::Preference, Scope::User, true),
    Form { replaces: Some("My name is"), ..form("my name is ", Kind::Fact, Scope::User, true) },
    form("we decided ", Kind::Decision, Scope::Workspace, true),
    form("we've decided ", Kind::Decision, Scope::Workspace, true),
    form("we have decided ", Kind::Decision, Scope::Workspace, true),
    form("we agreed ", Kind::Decision, Scope::Workspace, true),
];

/// The memories in a conversation, in the order they were said, each once, the first [`MAX_MEMORIES`]. What is too long is passed over.
pub fn extract(said: &[Said<'_>]) -> Vec<Extracted> {
    let mut found: Vec<Extracted> = Vec::new();
    for message in said.iter().filter(|message| message.speaker == Speaker::User) {
        for memory in sentences(message.text).filter_map(memory) {
            if found.len() == MAX_MEMORIES {
                return found;
            }
            if !found.iter().any(|other| other.content.to_lowercase() == memory.content.to_lowercase()) {
                found.push(memory);
            }
        }
    }
    found
}

fn memory(sentence: &str) -> Option<Extracted> {
    if sentence.ends_with('?') {
        return None;
    }
    // "- " of a list, "> " of a quotation, and quotation marks.
    let mut sentence = sentence.trim_start_matches(|c: char| c.is_whitespace() || "-*•>\"“'".contains(c));
    // "Note: remember that I prefer tea" is a preference in two wrappings: a loop, as a text may be wrapped without end.
    let mut found = None;
    loop {
        while let Some(rest) = BEFORE.iter().find_map(|word| after_word(sentence, word)) {
            sentence = rest;
        }
        let Some((form, rest)) = FORMS.iter().find_map(|form| after(sentence, form.begins).map(|rest| (form, rest))) else { break };
        if !rest.contains(char::is_alphanumeric) {
            return None;
        }
        found = Some((form, if form.whole { sentence } else { rest }));
        if form.whole {
            break;
        }
        sentence = rest;
    }
    let (form, text) = found?;
    let content = sized(&capitalised(text))?;
    Some(Extracted { kind: form.kind, content, scope: form.scope, replaces: form.replaces.map(str::to_owned) })
}

/// What follows a beginning, whatever its case and its apostrophe.
fn after<'a>(text: &'a str, begins: &str) -> Option<&'a str> {
    let mut rest = text;
    for wanted in begins.chars() {
        let next = rest.chars().next()?;
        let same = next.eq_ignore_ascii_case(&wanted) || (wanted == '\'' && next == '’') || (wanted == ' ' && next.is_whitespace());
        if !same {
            return None;
        }
        rest = &rest[next.len_utf8()..];
    }
    Some(rest.trim_start())
}

/// What follows a word and the blank or comma after it.
fn after_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let rest = &text[text.len() - after_exactly(text, word)?.len()..];
    let trimmed = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
    (trimmed.len() < rest.len() && !trimmed.is_empty()).then_some(trimmed)
}

fn after_exactly<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    text.get(..word.len()).filter(|head| head.eq_ignore_ascii_case(word)).map(|_| &text[word.len()..])
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// The sentences of a text: they end at a line break, or at `.`, `!` or `?` before a blank ("3.5" and "example.com" go on).
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut chars = rest.char_indices().peekable();
        let mut end = rest.len();
        while let Some((at, c)) = chars.next() {
            let ends = match c {
                '\n' | '\r' => true,
                '.' | '!' | '?' => chars.peek().is_some_and(|(_, next)| next.is_whitespace()),
                _ => false,
            };
            if ends {
                end = at + c.len_utf8();
                break;
            }
        }
        let (sentence, after) = rest.split_at(end);
        rest = after;
        Some(sentence.trim())
    })
    .filter(|sentence| !sentence.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of_user(text: &str) -> Vec<(Kind, String)> {
        extract(&[Said { speaker: Speaker::User, text }]).into_iter().map(|memory| (memory.kind, memory.content)).collect()
    }

    #[test]
    fn the_forms_are_taken() {
        for (text, kind, content) in [
            ("Remember that refunds take 30 days.", Kind::Fact, "Refunds take 30 days."),
            ("Hi, please REMEMBER that the office is in Lisbon!", Kind::Fact, "The office is in Lisbon!"),
            ("I prefer short answers", Kind::Preference, "I prefer short answers"),
            ("Thanks. And also, I’d prefer tea. How are you?", Kind::Preference, "I’d prefer tea."),
            ("my name is Anna.", Kind::Fact, "My name is Anna."),
            (
                "So:\n- we've decided to ship version 3.5 of example.com on Fridays. OK?",
                Kind::Decision,
                "We've decided to ship version 3.5 of example.com on Fridays.",
            ),
            ("Note: the key is under the mat", Kind::Note, "The key is under the mat"),
            ("note: I prefer tea", Kind::Preference, "I prefer tea"),
            ("remember that über is a word", Kind::Fact, "Über is a word"),
        ] {
            assert_eq!(of_user(text), [(kind, content.to_owned())], "{text}");
        }
    }

    #[test]
    fn nothing_else_is() {
        for text in [
            "",
            "Do you remember that I prefer tea?",
            "I prefer what?",
            "I noted that you prefer tea.",
            "Noted: nothing.",
            "I preferred tea.",
            "You said we decided nothing.",
            "Remember that ",
            "note: ...",
            "and",
            "please, please,",
            "Erinnere dich: Tee.",
        ] {
            assert!(of_user(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn only_the_user_is_listened_to_and_each_thing_is_taken_once() {
        let said = [
            Said { speaker: Speaker::Assistant, text: "Note: I prefer to be obeyed. Remember that I am in charge." },
            Said { speaker: Speaker::User, text: "I prefer tea. i prefer Tea. We decided on Fridays." },
        ];
        let found = extract(&said);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].scope, found[1].scope), (Scope::User, Scope::Workspace));
        let name = extract(&[Said { speaker: Speaker::User, text: "My name is Bo" }]);
        assert_eq!(name[0].replaces.as_deref(), Some("My name is"), "there is one name");
    }

    #[test]
    fn numbers_and_sizes_are_bounded() {
        let many: String = (0..50).fold(String::new(), |text, number| text + &format!("Note: number {number}. "));
        assert_eq!(of_user(&many).len(), MAX_MEMORIES);
        assert!(of_user(&format!("Remember that {}", "a".repeat(2_001))).is_empty());
        assert_eq!(of_user(&format!("Remember that {}", "a".repeat(2_000))).len(), 1);
        // Wrapped a hundred thousand times: it must end, and not by the stack's end.
        assert_eq!(of_user(&format!("{}tea", "note: ".repeat(100_000))), [(Kind::Note, "Tea".to_owned())]);
    }

    proptest! {
        #[test]
        fn whatever_is_found_was_said_and_fits(text in "((remember that|note:|I prefer|please|my name is|,|\\.|\n| )[a-cé ]{0,3}){0,12}") {
            for (_, content) in of_user(&text) {
                prop_assert!(!content.is_empty() && content.chars().count() <= 2_000 && content.trim() == content);
                let rest: String = content.chars().skip(1).collect();
                prop_assert!(text.contains(&rest), "{content:?}");
            }
        }

        #[test]
        fn nothing_panics(text in "(?s).{0,200}") {
            let _ = of_user(&text);
            let again: String = sentences(&text).collect::<String>();
            prop_assert_eq!(again.chars().filter(|c| !c.is_whitespace()).count(), text.chars().filter(|c| !c.is_whitespace()).count());
        }
    }
}
