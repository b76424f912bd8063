//! What a model is asked.

/// A prompt, rendered. Its `Debug` shows sizes, never a text.
#[derive(Clone, PartialEq, Eq)]
pub struct Prompt {
    /// The system prompt; may be empty.
    pub system: String,
    /// The conversation, oldest first, ending with the user's message.
    pub messages: Vec<Message>,
    /// What memory returned, best first; it stands in `system` too, for models that read. Apart it is for `local` only, which quotes it: it is
    /// not sent, and no count includes it.
    pub memories: Vec<String>,
    /// The most that the model may generate, in tokens; at least 1.
    pub max_output_tokens: u64,
    /// The JSON schema, as JSON, that the answer must have, for providers that take one (`openai`); the prompt should say it, too.
    pub answer_schema: Option<String>,
    /// Nobody waits for the answer: the provider may serve it when that suits it, at its batch rates (`OpenAI`'s flex). Others are asked as always.
    pub batch: bool,
}

/// One message of the conversation. Its `Debug` shows its size, never its text.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Who said it.
    pub role: MessageRole,
    /// What.
    pub content: String,
}

/// Who said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageRole {
    /// The person.
    User,
    /// The model.
    Assistant,
}

impl MessageRole {
    /// The name in both providers' protocols.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

impl Prompt {
    /// Every text that a model counts as input.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.system.as_str())
            .chain(self.messages.iter().map(|message| message.content.as_str()))
            .chain(self.answer_schema.as_deref())
    }
}

impl std::fmt::Debug for Prompt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { system, messages, memories, max_output_tokens, answer_schema, batch } = self;
        f.debug_struct("Prompt")
            .field("system_bytes", &system.len())
            .field("messages", messages)
            .field("memories", &memories.len())
            .field("max_output_tokens", max_output_tokens)
            .field("answer_schema", &answer_schema.is_some())
            .field("batch", batch)
            .finish()
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}({} bytes)", self.role.as_str(), self.content.len())
    }
}
