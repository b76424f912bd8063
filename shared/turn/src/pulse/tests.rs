//! When the counter is called in the course of an answer, and what it is told.

use super::*;
use astra_host::testing::{FakeHost, NOW};
use astra_host::{CounterUnreachable, Host as _};
use astra_quota::words::Extended;
use futures_util::FutureExt as _;

fn grants(ask: &Ask) -> Result<Answer, CounterUnreachable> {
    let Ask::Extend(extend) = ask else { return Err(CounterUnreachable) };
    let output = if extend.output == 0 { 1_000 } else { 2 * extend.output };
    Ok(Answer::Extended(Extended { stop: false, covered: true, wait: false, output, max_output: 1_000_000 }))
}

/// An answer whose pieces of a token and four bytes come at these moments; when the counter was called, and how many tokens it was told of.
fn calls(counter: fn(&Ask) -> Result<Answer, CounterUnreachable>, pieces: impl IntoIterator<Item = i64>, end: i64) -> Vec<(i64, u64)> {
    let (host, meter) = (FakeHost::new(&[]), Meter::new(1_000, 1_000_000));
    host.counter(counter);
    let workspace = "acme".to_owned().try_into().unwrap();
    let mut pulse = Box::pin(pulse(&host, &workspace, TurnId(host.new_id()), &meter, NOW.plus_millis(600_000)));
    let (mut pieces, mut delivered, mut calls) = (pieces.into_iter().peekable(), 0_u64, Vec::new());
    for at in (0..end).step_by(10) {
        while pieces.next_if(|piece| *piece <= at).is_some() {
            delivered += 1;
            meter.cover(usize::try_from(delivered * 4).unwrap(), delivered).now_or_never().expect("it is covered");
            meter.delivered(delivered);
        }
        assert_eq!((&mut pulse).now_or_never(), None);
        let asked = host.asked();
        for ask in &asked[calls.len()..] {
            let told = ask.split("output_tokens: ").nth(1).unwrap().split(',').next().unwrap();
            calls.push((at, told.parse().unwrap()));
        }
        host.pass(10);
    }
    calls
}

#[test]
fn what_was_delivered_is_told_within_half_a_second() {
    let calls = calls(grants, [1_300, 1_310, 1_900, 4_700], 8_000);
    assert_eq!(calls, [(1_000, 0), (1_800, 2), (2_400, 3), (4_400, 3), (5_880, 4), (7_880, 4)], "else only signs of life");
}

#[test]
fn an_answer_that_streams_for_less_than_half_a_second_costs_no_call() {
    assert_eq!(calls(grants, (300..790).step_by(10), 790), []);
    assert_eq!(calls(grants, [0], 490), []);
}

#[test]
fn a_long_answer_costs_few_calls_and_loses_at_most_a_quarter_of_it() {
    // A hundred tokens a second. The first hold is enough for one and a half, what it grows to for the rest.
    let calls = calls(grants, (0..20_000).step_by(10), 20_000);
    assert!((14..=19).contains(&calls.len()), "{calls:?}");
    let times: Vec<_> = std::iter::once(0).chain(calls.iter().map(|(at, _)| *at)).collect();
    assert!(times.windows(2).all(|two| two[1] - two[0] <= (two[1] / 4).clamp(500, 2_000) + 10), "{calls:?}");
    assert!(calls.iter().all(|(at, told)| i64::try_from(*told).unwrap() == at / 10 + 1), "each tells all: {calls:?}");
}

#[test]
fn a_counter_that_is_away_is_not_called_more_often() {
    let calls = calls(|_| Err(CounterUnreachable), [100, 2_000], 5_000);
    assert_eq!(calls, [(600, 1), (2_500, 2), (4_500, 2)], "what was not taken is left to the next call");
}
