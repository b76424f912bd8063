//! Steps 5 and 6: the model's answer, handed on as it comes, and the turn's end.

use crate::answer::TurnAnswer;
use crate::finish::End;
use crate::hold::TurnHold;
use crate::meter::Meter;
use crate::pulse::{Cut, pulse};
use astra_host::Failure;
use astra_host::stream::TurnHost;
use astra_kernel::{Code, Problem, Timestamp, Tokens, Usage, UsageSource};
use astra_models::{EndReason, Ended, Endpoint, Generation, ModelError, Piece, Prompt, Retry, estimate_input, estimate_output};
use astra_quota::QuotaView;
use astra_quota::words::TurnStatus;
use futures_util::future::{Either, select};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

/// A turn whose budget is held. Who drops it ends it as failed.
#[derive(Debug)]
#[must_use = "a turn that has begun must be run to its end"]
pub struct Running<H: TurnHost> {
    /// Its hold, with the record's beginning.
    pub hold: TurnHold<H>,
    /// What the model is asked.
    pub prompt: Prompt,
    pub(crate) endpoint: Endpoint,
    pub(crate) bounded_by_budget: bool,
    pub(crate) deadline: Timestamp,
    pub(crate) request_id: Arc<str>,
    /// What is used and left of the limits, with the hold in it.
    pub quota: QuotaView,
}

impl<H: TurnHost> Running<H> {
    /// The id of the request that began it.
    pub fn request_id(&self) -> Arc<str> {
        Arc::clone(&self.request_id)
    }
}

/// What the model call came to.
struct Said {
    usage: Option<Usage>,
    end: Result<EndReason, Stopped>,
}

enum Stopped {
    Cut(Cut),
    Model(ModelError),
}

/// Runs a turn to its end. `on_text` gets the text as it comes. Belongs to background work: see the crate's head.
///
/// # Errors
/// What the caller is told when the turn failed; it is saved all the same.
pub async fn run<H: TurnHost>(host: &H, running: Running<H>, on_text: &mut (dyn FnMut(&str) + Send)) -> Result<TurnAnswer, Failure> {
    let Running { mut hold, prompt, endpoint, bounded_by_budget, deadline, request_id, quota: _ } = running;
    let (workspace, counter, turn_id) = match hold.opening() {
        Some(opening) => (opening.workspace.clone(), opening.counter().clone(), opening.turn_id),
        None => return Err(Failure::internal("a turn that has ended")),
    };
    let began = host.now();
    let mut first = None;
    let (said, counter_calls) = {
        let (text, meter) = hold.delivery();
        let cut = pulse(host, &counter, turn_id, meter, deadline);
        let mut timed = |text: &str| {
            first.get_or_insert_with(|| host.now());
            on_text(text);
        };
        (generate(host, &endpoint, &prompt, deadline, (text, meter), cut, &mut timed).await, meter.called())
    };
    let spoken = host.now();
    let (end, problem) = judge(said, hold.text(), hold.covered(), bounded_by_budget);
    let line = serde_json::json!({
        "event": "turn", "requestId": &*request_id, "workspace": workspace, "payer": (counter != workspace).then_some(&counter), "turnId": turn_id, "status": end.status,
        "finishReason": end.finish_reason, "counterCalls": counter_calls, "usageSource": end.usage.source, "code": problem.as_ref().map(|p| p.code.as_str()),
        "cause": problem.as_ref().map(|p| &p.detail),
    });
    let finished = hold.settle(end).await;
    log(
        host,
        line,
        finished.is_ok(),
        [("firstText", first.map(|at| at.0 - began.0)), ("model", Some(spoken.0 - began.0)), ("finish", Some(host.now().0 - spoken.0))],
    );
    match (finished, problem) {
        (Err(failure), _) => Err(failure),
        (Ok(_), Some(problem)) => Err(problem.into()),
        (Ok(answer), None) => Ok(answer),
    }
}

fn log<H: TurnHost>(host: &H, mut line: serde_json::Value, saved: bool, phases: [(&str, Option<i64>); 3]) {
    line["saved"] = saved.into();
    line["phases"] =
        phases.into_iter().filter_map(|(name, millis)| Some((name.to_owned(), millis?.into()))).collect::<serde_json::Map<_, _>>().into();
    host.log(&line.to_string());
}

/// Calls the model until it ends or the turn is cut. Nothing is handed on that the hold does not cover.
async fn generate<H: TurnHost>(
    host: &H,
    endpoint: &Endpoint,
    prompt: &Prompt,
    deadline: Timestamp,
    (text, meter): (&mut String, &Meter),
    cut: impl Future<Output = Cut> + Send,
    on_text: &mut (dyn FnMut(&str) + Send),
) -> Said {
    let mut cut = pin!(cut);
    let input = estimate_input(prompt);
    meter.asked(input);
    let now = || host.now();
    let seed = u64::from_le_bytes(*host.new_id().as_bytes().last_chunk().unwrap_or(&[0; 8]));
    let asking = |asking| meter.asked(if asking { input } else { 0 });
    let retry = Retry { attempts: 3, deadline, now: &now, seed, asking: &asking };
    let mut generation = {
        let start = pin!(Generation::start(host, endpoint, prompt, retry));
        match select(start, cut.as_mut()).await {
            Either::Left((Ok(generation), _)) => generation,
            // The provider refused, or was not there: nothing was used.
            Either::Left((Err(error), _)) => return Said { usage: None, end: Err(Stopped::Model(error)) },
            // The prompt if the provider was working on it; nothing if it had refused and a retry was waited for.
            Either::Right((cut, _)) => return Said { usage: Some(meter.usage()), end: Err(Stopped::Cut(cut)) },
        }
    };
    // Text that has come and is not delivered yet, and how the provider said that it ended.
    let (mut pending, mut written, mut ended) = (String::new(), 0, None);
    let end = loop {
        let arrived = {
            let covered = pin!(covered(host, meter, (text.len(), pending.len(), written), ended.as_ref()));
            let next = pin!(async {
                match &ended {
                    None => generation.next().await,
                    Some(_) => std::future::pending().await,
                }
            });
            match select(select(covered, next), cut.as_mut()).await {
                Either::Left((Either::Left((covered, _)), _)) => Arrived::Cover(covered),
                Either::Left((Either::Right((next, _)), _)) => Arrived::Next(next),
                Either::Right((cut, _)) => break Err(Stopped::Cut(cut)),
            }
        };
        match arrived {
            Arrived::Next(Ok(Some(Piece::Text(piece)))) => {
                pending.push_str(&piece);
                written = estimate_output(text) + estimate_output(&pending);
            }
            Arrived::Next(Ok(Some(Piece::End(end)))) => ended = Some(end),
            Arrived::Next(Ok(None)) => break Err(Stopped::Model(ModelError::Broken)),
            Arrived::Next(Err(error)) => break Err(Stopped::Model(error)),
            Arrived::Cover(covered) => {
                let paid = pending.floor_char_boundary(covered.saturating_sub(text.len()));
                if paid > 0 {
                    on_text(&pending[..paid]);
                    text.push_str(&pending[..paid]);
                    meter.delivered(estimate_output(text));
                    pending.drain(..paid);
                }
                match ended.take() {
                    _ if !pending.is_empty() => break Err(Stopped::Cut(Cut::Quota)),
                    Some(Ended { reason, usage: Some(usage) }) if is_plausible(&usage) => {
                        return Said { usage: Some(usage), end: Ok(reason) };
                    }
                    Some(Ended { reason, usage: _ }) => break Ok(reason),
                    None => {}
                }
            }
        }
    };
    // The provider did not count. What it wrote is counted here; a provider that broke off before a word is not paid for the silence.
    let silent = text.is_empty() && pending.is_empty() && matches!(end, Err(Stopped::Model(_)));
    let usage = (!silent).then(|| generation.delivered_usage(prompt, &format!("{text}{pending}")));
    Said { usage, end }
}

/// How long, in milliseconds, to listen for the end of an answer that is paid for and cannot be delivered without its count.
const LISTEN: u32 = 100;

/// What a running answer goes on with.
enum Arrived {
    /// So many bytes may have been delivered.
    Cover(usize),
    /// More of the answer.
    Next(Result<Option<Piece>, ModelError>),
}

/// Waits until what has come is covered, or cannot be: how many bytes may have been delivered then. An answer that has ended and was counted is covered by
/// its count.
async fn covered<H: TurnHost>(
    host: &H,
    meter: &Meter,
    (delivered, pending, written): (usize, usize, Tokens),
    ended: Option<&Ended>,
) -> usize {
    let bytes = delivered + pending;
    let is_counted = || matches!(ended, Some(Ended { usage: Some(usage), .. }) if usage.output_tokens <= meter.held());
    if pending == 0 && ended.is_none() {
        std::future::pending().await
    } else if pending == 0 || is_counted() {
        bytes
    } else {
        let covered = meter.cover(bytes, written).await;
        if is_counted() {
            return bytes;
        }
        if covered < bytes && ended.is_none() && written <= meter.held() {
            // What has come is paid for, and its end with its count may be on its way.
            host.sleep(LISTEN).await;
        }
        covered
    }
}

/// No model reads or writes a billion tokens at once: a provider that says so did not count.
fn is_plausible(usage: &Usage) -> bool {
    const MOST: u64 = 1_000_000_000;
    let Usage { input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, source: _ } = *usage;
    [input_tokens, cached_input_tokens, output_tokens, reasoning_tokens].into_iter().all(|tokens| tokens < MOST)
}

/// Turns what the model said into the turn's end, and into the problem that the caller is told, if any.
fn judge(said: Said, text: &str, (input_bound, output): (Tokens, Tokens), bounded_by_budget: bool) -> (End, Option<Problem>) {
    let Said { usage, end } = said;
    let usage = match usage {
        None => Usage { source: UsageSource::Estimated, ..Usage::NONE },
        // What the provider counted is what is paid. An estimate never exceeds what was held.
        Some(usage) if usage.source == UsageSource::Provider => usage,
        Some(usage) => {
            let (input_tokens, output_tokens) = (usage.input_tokens.min(input_bound), usage.output_tokens.min(output));
            Usage { input_tokens, output_tokens, cached_input_tokens: usage.cached_input_tokens.min(input_tokens), ..usage }
        }
    };
    // Postgres has no text with a NUL in it.
    let is_answer = end.is_ok() || matches!(end, Err(Stopped::Cut(Cut::Quota)));
    let content = (!text.is_empty() || is_answer).then(|| text.replace('\0', "\u{fffd}"));
    let (status, finish_reason, problem) = match end {
        Ok(EndReason::Length) if bounded_by_budget => (TurnStatus::Completed, "quota", None),
        Ok(EndReason::Length) => (TurnStatus::Completed, "length", None),
        Ok(EndReason::Stop | EndReason::ContentFilter | EndReason::Other) => (TurnStatus::Completed, "stop", None),
        Err(Stopped::Cut(Cut::Quota)) => (TurnStatus::Completed, "quota", None),
        Err(Stopped::Cut(Cut::Stopped)) => (TurnStatus::Stopped, "stopped", None),
        Err(Stopped::Cut(Cut::Deadline)) => {
            let detail = "The turn's deadline passed before the model had ended. What it delivered is saved and charged.";
            (TurnStatus::Failed, "error", Some(Problem::new(Code::UpstreamTimeout, detail)))
        }
        Err(Stopped::Cut(Cut::Lost)) => {
            let detail = "The quota counter no longer knows this turn: it was taken for dead, or its workspace was deleted.";
            (TurnStatus::Failed, "error", Some(Problem::new(Code::Unavailable, detail)))
        }
        Err(Stopped::Model(error)) => (TurnStatus::Failed, "error", Some(Problem::from(&error))),
    };
    let error = problem.as_ref().map(|p| p.code);
    (End { status, finish_reason, content, usage, error }, problem)
}

#[cfg(test)]
mod tests;
