//! The model that is always there: deterministic, without a network or a key, so that everything runs and is tested without either.
//!
//! It quotes the user's message and the best of what memory returned. Its token is a word: a run of characters without whitespace
//! (Unicode's `White_Space`). A word is at least one byte, which every upper bound here relies on.

use crate::{EndReason, Ended, MessageRole, ModelError, Piece, Prompt};
use astra_kernel::{Tokens, Usage, UsageSource};
use std::collections::VecDeque;

/// The id of the one local model.
pub const LOCAL_MODEL: &str = "echo-1";

/// How many words of the answer are given at a time.
const WORDS_PER_PIECE: u64 = 4;

/// How many memories are quoted.
const QUOTED: usize = 3;

/// How many tokens the local model counts in a text: its words.
pub fn local_tokens(text: &str) -> Tokens {
    text.split_whitespace().count() as u64
}

/// A whole answer, given out piece by piece.
pub(crate) struct Answer {
    pieces: VecDeque<String>,
    ended: Option<Ended>,
    usage: Usage,
}

impl Answer {
    /// # Errors
    /// [`ModelError::Misconfigured`] for another model than [`LOCAL_MODEL`].
    pub(crate) fn new(model: &str, prompt: &Prompt) -> Result<Self, ModelError> {
        if model != LOCAL_MODEL {
            return Err(ModelError::Misconfigured("the provider local has one model, echo-1"));
        }
        let (pieces, reason) = cut(&answer(prompt), prompt.max_output_tokens);
        let usage = Usage {
            input_tokens: prompt.texts().map(local_tokens).sum(),
            cached_input_tokens: 0,
            output_tokens: pieces.iter().map(|piece| local_tokens(piece)).sum(),
            reasoning_tokens: 0,
            source: UsageSource::Provider,
        };
        Ok(Self { pieces, ended: Some(Ended { reason, usage: Some(usage) }), usage })
    }

    pub(crate) fn next(&mut self) -> Option<Piece> {
        self.pieces.pop_front().map(Piece::Text).or_else(|| self.ended.take().map(Piece::End))
    }

    /// What the whole answer uses.
    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }
}

fn answer(prompt: &Prompt) -> String {
    let question =
        prompt.messages.iter().rev().find(|message| message.role == MessageRole::User).map_or("", |message| message.content.trim());
    if question.is_empty() {
        return "I am echo-1, the model that needs no key. What would you like to know?".to_owned();
    }
    if prompt.memories.is_empty() {
        return format!(
            "I am echo-1, the model that needs no key. You said: \"{question}\". Nothing in this workspace's memory is about that yet."
        );
    }
    let memories: Vec<String> = prompt.memories.iter().take(QUOTED).map(|memory| format!("\"{}\"", memory.trim())).collect();
    format!("You said: \"{question}\". This workspace's memory has: {}.", memories.join("; "))
}

/// Cuts an answer into pieces between words, and off after so many words.
fn cut(answer: &str, most: Tokens) -> (VecDeque<String>, EndReason) {
    let mut pieces = VecDeque::new();
    let (mut piece, mut words) = (String::new(), 0);
    // Each part is a word with the whitespace after it, or whitespace alone.
    for part in answer.split_inclusive(char::is_whitespace) {
        let new = local_tokens(part);
        if words + new > most {
            break;
        }
        piece.push_str(part);
        words += new;
        if new > 0 && words % WORDS_PER_PIECE == 0 {
            pieces.push_back(std::mem::take(&mut piece));
        }
    }
    if !piece.is_empty() {
        pieces.push_back(piece);
    }
    let reason = if words < local_tokens(answer) { EndReason::Length } else { EndReason::Stop };
    (pieces, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Message;
    use proptest::prelude::*;

    fn prompt(message: &str, memories: &[&str], max_output_tokens: Tokens) -> Prompt {
        Prompt {
            system: "You help.".into(),
            messages: vec![Message { role: MessageRole::User, content: message.into() }],
            memories: memories.iter().map(|&memory| memory.to_owned()).collect(),
            max_output_tokens,
            answer_schema: None,
            batch: false,
        }
    }

    fn run(prompt: &Prompt) -> (Vec<String>, Ended) {
        let mut answer = Answer::new(LOCAL_MODEL, prompt).unwrap();
        let mut texts = Vec::new();
        loop {
            match answer.next().unwrap() {
                Piece::Text(text) => texts.push(text),
                Piece::End(ended) => return (texts, ended),
            }
        }
    }

    #[test]
    fn it_quotes_the_message_and_the_best_memories() {
        let (texts, ended) = run(&prompt("How long are refunds?", &["Refunds take 30 days.", "b", "c", "worst"], 100));
        assert!(texts.len() > 2);
        assert_eq!(
            texts.concat(),
            "You said: \"How long are refunds?\". This workspace's memory has: \"Refunds take 30 days.\"; \"b\"; \"c\"."
        );
        assert_eq!(ended.reason, EndReason::Stop);
        let usage = ended.usage.unwrap();
        assert_eq!((usage.input_tokens, usage.output_tokens), (2 + 4, 16));
    }

    #[test]
    fn another_model_is_refused() {
        assert!(matches!(Answer::new("echo-2", &prompt("a", &[], 1)), Err(ModelError::Misconfigured(_))));
    }

    proptest! {
        #[test]
        fn it_never_says_more_than_allowed(message in "(?s).{0,60}", memory in "(?s).{0,60}", most in 0_u64..30) {
            let prompt = prompt(&message, &[&memory], most);
            let (texts, ended) = run(&prompt);
            prop_assert!(texts.iter().all(|text| !text.is_empty()));
            let usage = ended.usage.unwrap();
            prop_assert_eq!(usage.output_tokens, local_tokens(&texts.concat()));
            prop_assert!(usage.output_tokens <= most);
            prop_assert_eq!(ended.reason == EndReason::Length, texts.concat() != answer(&prompt));
            prop_assert_eq!(run(&prompt), (texts, ended));
        }
    }
}
