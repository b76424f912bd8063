//! Tokens without a tokenizer: bounds for holds, estimates for what no provider counted.
//!
//! The tokenizers in question (byte-level BPE as in `tiktoken`, `SentencePiece` with byte fallback) make each token from at least one byte
//! of the text, so a text has at most as many tokens as bytes in UTF-8. What a provider adds around the texts is bounded by constants.
//! The one exception known is a `SentencePiece` model that normalises by NFKC, where one rare character (U+FDFA) can grow: chat models do not.

use crate::{Prompt, Provider};
use astra_kernel::Tokens;

/// Tokens around one message. `OpenAI`'s cookbook ("How to count tokens with tiktoken") says 3 and one for the role;
/// Llama 3's template has 5 (two header marks, role, two newlines, end mark). 16 leaves room for others.
const AROUND_MESSAGE: u64 = 16;

/// Tokens around the whole. `OpenAI`'s cookbook says 3 that prime the answer; templates of open models put in a begin mark and, without
/// a system prompt, a sentence or two of their own (Qwen 2.5: 20 tokens; Llama 3.1, with two dates: 25). 64 leaves room for others.
const AROUND_PROMPT: u64 = 64;

/// The same two for an estimate: as `OpenAI` counts.
const USUAL_MESSAGE: u64 = 4;
const USUAL_PROMPT: u64 = 3;

/// Bytes of a token in English prose, by `OpenAI`'s rule of thumb ("What are tokens and how to count them": 4 characters).
/// Code and other languages have fewer characters to a token but, outside ASCII, more bytes to a character: it stays near.
const BYTES_PER_TOKEN: u64 = 4;

/// An upper bound of what a provider adds around one message and around the whole, in tokens. `local` adds nothing.
pub fn around(provider: Provider) -> (Tokens, Tokens) {
    match provider {
        Provider::Local => (0, 0),
        Provider::Openai | Provider::Anthropic => (AROUND_MESSAGE, AROUND_PROMPT),
    }
}

/// An upper bound of what the provider will count as input, in tokens: what a hold takes. Holds for a prompt without tools or pictures.
pub fn prompt_upper_bound(provider: Provider, prompt: &Prompt) -> Tokens {
    let (message, whole) = around(provider);
    bytes(prompt) + message * messages(prompt) + whole
}

/// About what the provider will have counted as input, in tokens: what is charged when it could not say. At most the upper bound.
pub fn estimate_input(prompt: &Prompt) -> Tokens {
    bytes(prompt).div_ceil(BYTES_PER_TOKEN) + USUAL_MESSAGE * messages(prompt) + USUAL_PROMPT
}

/// About what the provider will have counted as output for a delivered text, in tokens: what is charged when it could not say.
///
/// A token for every four bytes, rounded up: nothing delivered is nothing charged, and anything delivered is at least one. How many pieces
/// it came in does not enter: providers and networks cut them as they like. At most the number of bytes, so within any hold by bytes.
pub fn estimate_output(text: &str) -> Tokens {
    length(text).div_ceil(BYTES_PER_TOKEN)
}

/// The system prompt counts as a message.
fn messages(prompt: &Prompt) -> u64 {
    prompt.messages.len() as u64 + 1
}

fn bytes(prompt: &Prompt) -> u64 {
    prompt.texts().map(length).sum()
}

fn length(text: &str) -> u64 {
    text.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Message, MessageRole};
    use proptest::prelude::*;

    fn prompts() -> impl Strategy<Value = Prompt> {
        let texts = || proptest::collection::vec("(?s).{0,40}", 0..5);
        ("(?s).{0,80}", texts(), texts()).prop_map(|(system, messages, memories)| Prompt {
            system,
            messages: messages.into_iter().map(|content| Message { role: MessageRole::User, content }).collect(),
            memories,
            max_output_tokens: 10,
            answer_schema: None,
            batch: false,
        })
    }

    proptest! {
        #[test]
        fn a_bound_is_a_bound(prompt in prompts()) {
            let bound = prompt_upper_bound(Provider::Openai, &prompt);
            let local: Tokens = prompt.texts().map(crate::local_tokens).sum();
            prop_assert!(local <= prompt_upper_bound(Provider::Local, &prompt));
            prop_assert!(estimate_input(&prompt) <= bound);
            // Memories stand in `system` already: counted again, they would be charged twice.
            prop_assert_eq!(prompt_upper_bound(Provider::Openai, &Prompt { memories: vec![], ..prompt.clone() }), bound);
            // Even were each byte a token of its own, and each message wrapped as in Llama 3's template.
            let bytes: usize = prompt.texts().map(str::len).sum();
            prop_assert!(bytes as u64 + 5 * (prompt.messages.len() as u64 + 1) + 25 <= bound);
        }

        #[test]
        fn an_estimate_never_exceeds_the_bytes(text in "(?s).{0,100}") {
            let estimate = estimate_output(&text);
            prop_assert!(estimate <= text.len() as u64);
            prop_assert_eq!(estimate == 0, text.is_empty());
        }
    }

    #[test]
    fn four_bytes_are_a_token() {
        for (text, tokens) in [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("héllo", 2), ("日本語", 3)] {
            assert_eq!(estimate_output(text), tokens, "{text}");
        }
    }
}
