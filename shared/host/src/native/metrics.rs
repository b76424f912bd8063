//! What a process counts, for Prometheus. One set per process, as the format has it. Nothing in a label comes from a caller: no workspace, no path.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::sync::LazyLock;
use std::time::Duration;
use tokio::time::Instant;

/// From half a millisecond to half a minute.
const BUCKETS: [f64; 13] = [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0];

/// A request: who answered it, and its status.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The function, or `gateway`.
    pub function: &'static str,
    /// The status code.
    pub status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AskLabels {
    ask: &'static str,
    answer: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    pool: &'static str,
    state: &'static str,
}

type Times<L> = Family<L, Histogram, fn() -> Histogram>;

/// What is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Times<RequestLabels>,
    asks: Times<AskLabels>,
    statements: Times<CallLabels>,
    models: Times<CallLabels>,
    pools: Family<PoolLabels, Gauge>,
    memory: Gauge,
    /// Connections of clients.
    pub connections: Gauge,
    /// Requests and background work that are not finished.
    pub tasks: Gauge,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// The process's metrics.
pub fn metrics() -> &'static Metrics {
    &METRICS
}

impl Metrics {
    fn new() -> Self {
        let times = || Histogram::new(BUCKETS);
        let mut metrics = Self {
            registry: Registry::default(),
            requests: Family::new_with_constructor(times),
            asks: Family::new_with_constructor(times),
            statements: Family::new_with_constructor(times),
            models: Family::new_with_constructor(times),
            pools: Family::default(),
            memory: Gauge::default(),
            connections: Gauge::default(),
            tasks: Gauge::default(),
        };
        let mut registry = Registry::default();
        let astra = registry.sub_registry_with_prefix("astra");
        astra.register_with_unit("request", "From a request's head to its answer's head", Unit::Seconds, metrics.requests.clone());
        astra.register_with_unit("counter", "From asking a quota counter to its answer", Unit::Seconds, metrics.asks.clone());
        astra.register_with_unit("statement", "One statement, with the wait for a connection", Unit::Seconds, metrics.statements.clone());
        astra.register_with_unit("model_call", "From calling a provider to its answer's head", Unit::Seconds, metrics.models.clone());
        astra.register("pool_connections", "Connections to the database", metrics.pools.clone());
        astra.register("client_connections", "Connections of clients", metrics.connections.clone());
        astra.register("tasks", "Requests and background work that are not finished", metrics.tasks.clone());
        registry.register("process_resident_memory_bytes", "Resident memory", metrics.memory.clone());
        metrics.registry = registry;
        metrics
    }

    /// Notes a request that was answered.
    pub fn request(&self, labels: &RequestLabels, took: Duration) {
        self.requests.get_or_create(labels).observe(took.as_secs_f64());
    }

    pub(super) fn ask(&self, ask: &'static str, answer: &'static str, began: Instant) {
        self.asks.get_or_create(&AskLabels { ask, answer }).observe(began.elapsed().as_secs_f64());
    }

    pub(super) fn statement(&self, outcome: &'static str, began: Instant) {
        self.statements.get_or_create(&CallLabels { outcome }).observe(began.elapsed().as_secs_f64());
    }

    pub(super) fn model(&self, outcome: &'static str, began: Instant) {
        self.models.get_or_create(&CallLabels { outcome }).observe(began.elapsed().as_secs_f64());
    }

    /// Notes a pool's connections.
    pub fn pool(&self, pool: &'static str, open: usize, idle: usize, waiting: usize) {
        for (state, count) in [("open", open), ("idle", idle), ("waited_for", waiting)] {
            self.pools.get_or_create(&PoolLabels { pool, state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// All of it, in the text form of `OpenMetrics`.
    pub fn text(&self) -> String {
        self.memory.set(resident_bytes().unwrap_or_default());
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Resident memory in bytes, where the system tells (Linux).
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<i64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_in_the_text() {
        let metrics = Metrics::new();
        metrics.request(&RequestLabels { function: "billing", status: 200 }, Duration::from_millis(3));
        metrics.ask("begin", "refused", Instant::now());
        metrics.statement("fault", Instant::now());
        metrics.pool("DATABASE_URL_QUOTA", 4, 1, 0);
        let text = metrics.text();
        for line in [
            r#"astra_request_seconds_bucket{le="0.005",function="billing",status="200"} 1"#,
            r#"astra_request_seconds_bucket{le="0.002",function="billing",status="200"} 0"#,
            r#"astra_counter_seconds_count{ask="begin",answer="refused"} 1"#,
            r#"astra_statement_seconds_count{outcome="fault"} 1"#,
            r#"astra_pool_connections{pool="DATABASE_URL_QUOTA",state="open"} 4"#,
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(text.lines().any(|l| l.starts_with("process_resident_memory_bytes ") && !l.ends_with(" 0")), "{text}");
    }
}
