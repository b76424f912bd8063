//! What is done to a target, and how it must come out. Each scenario has customers of its own.
//!
//! What was spent is what the model's journal says, at the model's prices. Percentages are of the limit; where something is charged beyond what was produced, of
//! a usual answer's cost.

use crate::mock::{Ask, End, NANO_PER_WORD};
use crate::target::{Customer, Reply, Target, World};
use futures_util::future::{join, join_all};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Words of a usual answer: a cent.
const WORDS: i64 = 200;
const ANSWER: i64 = WORDS * NANO_PER_WORD;
const SOON: Duration = Duration::from_secs(20);
/// What prompts may cost beside what is compared, and what rounds.
const PENCE: i64 = NANO_PER_WORD;

/// How much of each.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Callers of a rush.
    pub callers: usize,
    /// Answers that each of half of them wants of a budget for all.
    pub wants: usize,
    /// Customers of whom nothing was known.
    pub unknown: usize,
    /// Streams that a crash meets.
    pub streams: usize,
    /// Percent of a limit that may be over: prompts, and what was on its way when a turn was cut, are estimates. On a small budget an answer is much of it.
    pub over: i64,
}

impl Scale {
    /// What a table is made of.
    pub const FULL: Self = Self { callers: 200, wants: 5, unknown: 10, streams: 12, over: 1 };
    /// Enough to see that something broke.
    pub const SHORT: Self = Self { callers: 40, wants: 2, unknown: 2, streams: 4, over: 8 };
}

/// How a scenario came out.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// As it must.
    pub holds: bool,
    /// In figures.
    pub said: String,
}

/// All scenarios by name, with what a row says of them.
pub const ALL: &[(&str, &str)] = &[
    ("overshoot", "callers at once on a budget for half of them: spent over the limit (and spent of it)"),
    ("overshoot-two", "the same through two processes over one state"),
    ("refusals", "`max_tokens` 32,000, 200 used: spent before refusals stick, within a minute"),
    ("first", "the first requests of customers never seen, 30 at once for each, for 10 of them: worst spent over the limit"),
    ("hang-ups", "clients hang up at each of 21 boundaries of a stream: charged beyond what the model produced, least and most"),
    ("errors", "upstream answers 500: still blocked of the limit"),
    (
        "silence",
        "upstream falls silent, before its head or after ten words, until the gateway's own timeout: still blocked; charged of what it produced",
    ),
    ("crash", "`kill -9` 2.5 s into slow streams and a restart: still blocked after the lease; produced and never charged"),
    ("limits", "a limit that is changed: what is used stays; one that is lowered below that holds at once"),
    ("zero", "an explicit usage of zero: charged"),
    ("broken", "upstream breaks off before its count: charged beyond what it produced"),
    ("unpriced", "a model without a price"),
    ("cancelled", "a client gives up on an answer that is not streamed: charged beyond what the model produced"),
];

/// Plays one; None when it says nothing about the target.
pub async fn play<T: Target>(name: &str, world: &World<'_, T>, scale: Scale) -> Option<Outcome> {
    Some(match name {
        _ if !world.target.plays(name) => return None,
        "overshoot" => overshoot(world, scale, 1).await,
        "overshoot-two" if world.target.doors().len() > 1 => overshoot(world, scale, 2).await,
        "refusals" => refusals(world, scale).await,
        "first" => first(world, scale).await,
        "hang-ups" => hang_ups(world).await,
        "errors" => errors(world).await,
        "silence" => silence(world).await,
        "crash" => crash(world, scale).await,
        "limits" => limits(world).await,
        "zero" => zero(world).await,
        "broken" => broken(world).await,
        "unpriced" => unpriced(world).await,
        "cancelled" => cancelled(world).await,
        _ => return None,
    })
}

fn ask(customer: &Customer, words: i64, piece: i64, every_ms: u64, end: End) -> Ask {
    Ask { customer: customer.id.clone(), words, piece, every_ms, end }
}

/// 200 words in two seconds.
fn usual(customer: &Customer) -> Ask {
    ask(customer, WORDS, 5, 50, End::Whole)
}

fn times(nano: i64, count: usize) -> i64 {
    nano * i64::try_from(count).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
fn percent(part: i64, of: i64) -> f64 {
    100.0 * part as f64 / of.max(1) as f64
}

/// Whether a limit was kept.
fn keeps(over: i64, limit: i64, scale: Scale) -> bool {
    over <= limit / 100 * scale.over
}

async fn overshoot<T: Target>(world: &World<'_, T>, scale: Scale, doors: usize) -> Outcome {
    let limit = times(ANSWER, scale.callers) / 2;
    let customer = world.customer(limit, 400).await;
    let asked = usual(&customer);
    let callers = (0..scale.callers).map(|number| world.persist(number % doors, &customer, &asked, (number / doors).is_multiple_of(2)));
    join_all(callers).await;
    let charged = world.settled(&customer, SOON).await;
    let spent = world.model.nano(&customer.id);
    let over = (spent - limit).max(0);
    let said = format!("{:.1} % ({:.1} %, charged {:.1} %)", percent(over, limit), percent(spent, limit), percent(charged, limit));
    Outcome { holds: keeps(over, limit, scale), said }
}

async fn refusals<T: Target>(world: &World<'_, T>, scale: Scale) -> Outcome {
    // Each caller wants some answers, and the budget has just enough for all, prompts included. It wants none any more after a minute.
    let callers = scale.callers / 2;
    let limit = times(ANSWER + PENCE, callers * scale.wants);
    let customer = world.customer(limit, 32_000).await;
    let asked = usual(&customer);
    let until = Instant::now() + Duration::from_mins(1);
    let caller = async |number: usize| {
        for want in (0..scale.wants).take_while(|_| Instant::now() < until) {
            world.persist(0, &customer, &asked, (number + want).is_multiple_of(2)).await;
        }
    };
    join_all((0..callers).map(caller)).await;
    world.settled(&customer, SOON).await;
    let spent = world.model.nano(&customer.id);
    let of = times(ANSWER, callers * scale.wants);
    #[expect(clippy::cast_precision_loss, reason = "a sum for people")]
    let dollars = limit as f64 / 1e9;
    Outcome {
        // An answer that is cut counts as had, so what it did not use is left over.
        holds: spent >= of / 100 * 95 && keeps(spent - limit, limit, scale),
        said: format!("{:.1} % of ${dollars:.2}", percent(spent, limit)),
    }
}

async fn first<T: Target>(world: &World<'_, T>, scale: Scale) -> Outcome {
    let limit = ANSWER * 10;
    let customers = join_all((0..scale.unknown).map(|_| world.customer(limit, 400))).await;
    let one = async |customer: &Customer| {
        let asked = usual(customer);
        join_all((0..30).map(|number| world.persist(number, customer, &asked, number.is_multiple_of(2)))).await;
        world.settled(customer, SOON).await;
        (world.model.nano(&customer.id) - limit).max(0)
    };
    let over = join_all(customers.iter().map(one)).await.into_iter().max().unwrap_or(0);
    Outcome { holds: keeps(over, limit, scale), said: format!("{:.1} %", percent(over, limit)) }
}

/// What customers who each had one call were charged beyond what the model produced, least and most, in percent of a usual answer.
/// A piece more or less, which was on its way when somebody went, is let pass.
async fn exact<T: Target>(world: &World<'_, T>, customers: &[Customer]) -> Outcome {
    let beyond = join_all(customers.iter().map(async |customer| {
        let taken = world.settled(customer, SOON).await;
        percent(taken - world.model.nano(&customer.id), ANSWER)
    }))
    .await;
    let (least, most) = beyond.iter().fold((f64::MAX, f64::MIN), |(least, most), one| (least.min(*one), most.max(*one)));
    Outcome { holds: least >= -6.0 && most <= 6.0, said: format!("{least:+.1} to {most:+.1} %") }
}

async fn hang_ups<T: Target>(world: &World<'_, T>) -> Outcome {
    const PIECES: usize = 20;
    let customers = join_all((0..=PIECES).map(|_| world.customer(ANSWER * 10, 400))).await;
    let leave = async |(boundary, customer): (usize, &Customer)| {
        // A piece every 100 ms. The model's journal says when so many are out; by then the client has read what was let through, and goes.
        let asked = ask(customer, WORDS, WORDS / 20, 100, End::Whole);
        let read = async {
            let mut response = world.send(boundary, customer, &asked, true).await.ok()?;
            while response.chunk().await.ok()?.is_some() {}
            Some(())
        };
        let boundary = i64::try_from(boundary).unwrap_or(0);
        let until = async {
            while !world.model.calls(&customer.id).first().is_some_and(|call| call.over || call.words >= boundary * (WORDS / 20)) {
                sleep(Duration::from_millis(5)).await;
            }
            sleep(Duration::from_millis(50)).await;
        };
        tokio::select! { _ = read => {}, () = until => {} }
    };
    join_all(customers.iter().enumerate().map(leave)).await;
    exact(world, &customers).await
}

/// What is taken of a budget beyond what the model produced, in percent of the limit.
fn blocked(taken: i64, produced: i64, limit: i64) -> f64 {
    percent((taken - produced).max(0), limit)
}

async fn errors<T: Target>(world: &World<'_, T>) -> Outcome {
    let limit = ANSWER * 40;
    let customer = world.customer(limit, 400).await;
    let asked = ask(&customer, 0, 1, 0, End::Error);
    join_all((0..20).map(|number| world.ask(number, &customer, &asked, number.is_multiple_of(2)))).await;
    let blocked = blocked(world.settled(&customer, SOON).await, 0, limit);
    Outcome { holds: blocked < 1.0, said: format!("{blocked:.1} %") }
}

async fn silence<T: Target>(world: &World<'_, T>) -> Outcome {
    let limit = ANSWER * 40;
    let customer = world.customer(limit, 400).await;
    let asked = |number: usize| ask(&customer, if number.is_multiple_of(2) { 0 } else { 10 }, 5, 50, End::Silent);
    join_all((0..10).map(async |number| world.ask(number, &customer, &asked(number), true).await)).await;
    let taken = world.settled(&customer, SOON).await;
    let produced = world.model.nano(&customer.id);
    let blocked = blocked(taken, produced, limit);
    Outcome { holds: blocked < 1.0 && taken >= produced / 10 * 9, said: format!("{blocked:.1} %; {:.1} %", percent(taken, produced)) }
}

async fn crash<T: Target>(world: &World<'_, T>, scale: Scale) -> Outcome {
    let customer = world.customer(times(ANSWER * 4, scale.streams), 800).await;
    // 50 words a second, for ten seconds.
    let asked = ask(&customer, 500, 10, 200, End::Whole);
    let streams = join_all((0..scale.streams).map(|_| world.ask(0, &customer, &asked, true)));
    let died = async {
        sleep(Duration::from_millis(2500)).await;
        world.target.crash(&world.http).await;
    };
    join(streams, died).await;
    let produced = world.model.nano(&customer.id);
    let at_once = world.target.taken(&world.http, &customer).await;
    sleep(world.target.lease()).await;
    let taken = world.settled(&customer, SOON).await;
    let limit = times(ANSWER * 4, scale.streams);
    let (before, after) = (blocked(at_once, produced, limit), blocked(taken, produced, limit));
    let lost = percent((produced - taken).max(0), produced);
    Outcome { holds: after < 1.0 && lost < LOST_AT_MOST, said: format!("{after:.1} % (at first {before:.1} %); lost {lost:.1} %") }
}

/// Percent of what streams had produced that a crash may lose.
const LOST_AT_MOST: f64 = 30.0;

async fn limits<T: Target>(world: &World<'_, T>) -> Outcome {
    let customer = world.customer(ANSWER * 10, 400).await;
    let asked = usual(&customer);
    join_all((0..4).map(|number| world.ask(number, &customer, &asked, number.is_multiple_of(2)))).await;
    let before = world.settled(&customer, SOON).await;
    world.target.limit(&world.http, &customer, ANSWER * 20).await;
    let raised = world.ask(0, &customer, &asked, false).await;
    let after = world.settled(&customer, SOON).await;
    let grown = after - before;
    let kept = matches!(raised, Reply::Whole(_)) && (ANSWER..ANSWER * 2).contains(&grown) && before >= ANSWER * 4;
    world.target.limit(&world.http, &customer, ANSWER * 4).await;
    let calls = world.model.calls(&customer.id).len();
    let lowered = world.ask(0, &customer, &asked, false).await;
    let holds = matches!(lowered, Reply::Refused(_)) && world.model.calls(&customer.id).len() == calls;
    let said = |well: bool, yes: &'static str, no: &'static str| if well { yes } else { no };
    Outcome {
        holds: kept && holds,
        said: format!("{}; {}", said(kept, "stays", "does not stay"), said(holds, "holds at once", "does not hold at once")),
    }
}

async fn zero<T: Target>(world: &World<'_, T>) -> Outcome {
    let customer = world.customer(ANSWER * 10, 400).await;
    let asked = ask(&customer, WORDS, 20, 10, End::Zero);
    let replies = [world.ask(0, &customer, &asked, true).await, world.ask(0, &customer, &asked, false).await];
    let taken = world.settled(&customer, SOON).await;
    let through = replies.iter().all(|reply| matches!(reply, Reply::Whole(_)));
    Outcome { holds: through && taken == 0, said: format!("{:.1} % of what the text would cost", percent(taken, ANSWER * 2)) }
}

async fn broken<T: Target>(world: &World<'_, T>) -> Outcome {
    let customers = join_all((0..3).map(|_| world.customer(ANSWER * 10, 400))).await;
    for (customer, words) in customers.iter().zip([20, 60, 120]) {
        world.ask(0, customer, &ask(customer, words, 10, 20, End::Broken), true).await;
    }
    exact(world, &customers).await
}

async fn unpriced<T: Target>(world: &World<'_, T>) -> Outcome {
    let refused = |how: &str| Outcome { holds: true, said: format!("refused ({how})") };
    let Ok(customer) = world.unpriced(ANSWER * 10).await else { return refused("the customer's set-up") };
    let reply = world.ask(0, &customer, &usual(&customer), false).await;
    match (world.model.calls(&customer.id).is_empty(), reply) {
        (true, Reply::Failed(_) | Reply::Refused(_)) => refused("the request"),
        (_, reply) => {
            let taken = world.settled(&customer, SOON).await;
            let through = if matches!(reply, Reply::Whole(_)) { "answered" } else { "the model was called" };
            Outcome { holds: false, said: format!("{through}, charged {:.1} %", percent(taken, world.model.nano(&customer.id))) }
        }
    }
}

async fn cancelled<T: Target>(world: &World<'_, T>) -> Outcome {
    let customers = join_all((0..4).map(|_| world.customer(ANSWER * 10, 400))).await;
    let leave = async |customer: &Customer| {
        let asked = ask(customer, WORDS, 20, 200, End::Whole);
        let _ = tokio::time::timeout(Duration::from_millis(1100), world.ask(0, customer, &asked, false)).await;
    };
    join_all(customers.iter().map(leave)).await;
    exact(world, &customers).await
}
