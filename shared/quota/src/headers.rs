//! `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10): the limits and what is left of them, as structured fields (RFC 9651).
//!
//! A policy is named as the limit is in the API; an agent's begins with `agent/`. Quantities are tokens, turns or nano-dollars (`qu`).

use crate::view::{QuotaView, Window};
use astra_kernel::Timestamp;
use std::fmt::Write as _;

/// The largest integer that a structured field can hold.
const MOST: i64 = 999_999_999_999_999;

/// The two fields' values; none when there is no limit over a time.
pub fn values(view: &QuotaView, now: Timestamp) -> Option<(String, String)> {
    let (mut policy, mut limit) = (String::new(), String::new());
    for window in &view.windows {
        let Some(resets_at) = window.resets_at else { continue };
        let comma = if policy.is_empty() { "" } else { ", " };
        let name = name(&window.limit, window.scope.starts_with("agent:"));
        let _ = write!(policy, "{comma}\"{name}\";q={};qu=\"{}\"", clamp(window.max), unit(window));
        if let Some(starts_at) = window.starts_at {
            let _ = write!(policy, ";w={}", (resets_at.0 - starts_at.0) / 1000);
        }
        let _ = write!(limit, "{comma}\"{name}\";r={};t={}", clamp(window.left), seconds(resets_at, now));
    }
    (!policy.is_empty()).then_some((policy, limit))
}

/// The name of a policy.
pub fn name(limit: &str, is_agents: bool) -> String {
    format!("{}{limit}", if is_agents { "agent/" } else { "" })
}

fn clamp(amount: i64) -> i64 {
    amount.clamp(0, MOST)
}

/// Rounded up: when they have passed, the window is over.
fn seconds(until: Timestamp, now: Timestamp) -> i64 {
    (until.0 - now.0).max(0).div_euclid(1000) + 1
}

fn unit(window: &Window) -> &'static str {
    match window.limit.as_str() {
        limit if limit.starts_with("maxCostUsd") => "nano-usd",
        limit if limit.starts_with("maxTokens") => "tokens",
        _ => "requests",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_over_a_time_are_policies() {
        let window = |limit: &str, scope: &str, starts_at, resets_at| Window {
            limit: limit.into(),
            scope: scope.into(),
            max: 100,
            used: 60,
            held: 10,
            left: 30,
            starts_at,
            resets_at,
        };
        let (hour, end) = (Some(Timestamp(0)), Some(Timestamp(3_600_000)));
        let windows = vec![
            window("maxTokensPerHour", "workspace", hour, end),
            window("maxCostUsdPerHour", "agent:a", hour, end),
            window("maxTurnsPerMinute", "workspace", None, end),
            window("maxAgents", "workspace", None, None),
        ];
        let (policy, limit) = values(&QuotaView { windows }, Timestamp(3_599_500)).unwrap();
        assert_eq!(
            policy,
            r#""maxTokensPerHour";q=100;qu="tokens";w=3600, "agent/maxCostUsdPerHour";q=100;qu="nano-usd";w=3600, "maxTurnsPerMinute";q=100;qu="requests""#
        );
        assert_eq!(limit, r#""maxTokensPerHour";r=30;t=1, "agent/maxCostUsdPerHour";r=30;t=1, "maxTurnsPerMinute";r=30;t=1"#);
        assert_eq!(values(&QuotaView::default(), Timestamp(0)), None);
    }
}
