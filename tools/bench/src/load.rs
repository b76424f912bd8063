//! N clients ask one address at the same time, each as soon as it has read its last answer to the end (a closed loop).
//!
//! The clock is monotonic. A warm-up comes first and is not counted; what ends inside the measured window is.

use crate::Fault;
use crate::cell::{Cell, Gaps};
use crate::client::{Client, Miss, Question};
use crate::process::{self, Watched};
use bytes::Bytes;
use hyper::header::{HOST, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Uri};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// No load runs longer than this, in seconds.
const LONGEST: f64 = 600.0;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What is measured, as the table names it.
    #[arg(long)]
    name: String,
    /// The address, on loopback. `{client}` in it is each client's number, from 1; so it is in the name of the file of headers.
    #[arg(long)]
    url: String,
    /// How many clients ask at the same time.
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds before that which are not.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// A request header, `name: value`. May be given many times.
    #[arg(long = "header")]
    headers: Vec<String>,
    /// Read a request header from a file (one `name: value` a line), so that a token is not in the process list.
    #[arg(long)]
    headers_file: Option<String>,
    /// The body; `@file` reads it from a file. With a body the method is POST, without one GET.
    #[arg(long)]
    body: Option<String>,
    /// The status of a right answer.
    #[arg(long, default_value_t = 200)]
    status: u16,
    /// What a right answer's body holds.
    #[arg(long, default_value = "")]
    expect: String,
    /// Processes whose CPU time is watched, `name=pid`, their descendants counted in. Linux only; elsewhere nothing is shown.
    #[arg(long = "cpu")]
    cpu: Vec<Watched>,
    /// Processes whose peak memory is read at the end, `name=pid`, their descendants counted in. Linux only.
    #[arg(long = "rss")]
    rss: Vec<Watched>,
    /// Measure the time between the chunks of an answer that hold this text. The clients then begin one after another over the warm-up:
    /// in step, they would measure who of them is served last.
    #[arg(long, default_value = "")]
    gaps: String,
}

pub(crate) async fn run(arguments: Arguments) -> Result<(), Fault> {
    let bounded = |seconds: f64| (0.0..=LONGEST).contains(&seconds);
    if !bounded(arguments.seconds) || !bounded(arguments.warmup) || arguments.seconds == 0.0 || arguments.clients == 0 {
        return Err(Fault::Usage(format!("--seconds and --warmup are at most {LONGEST}, --seconds and --clients more than 0")));
    }
    let questions: Vec<Question> = (0..arguments.clients).map(|at| question(&arguments, at)).collect::<Result<_, _>>()?;
    let questions: &'static [Question] = Vec::leak(questions);
    let begun = Instant::now();
    let warmup = Duration::from_secs_f64(arguments.warmup);
    let (from, until) = (begun + warmup, begun + warmup + Duration::from_secs_f64(arguments.seconds));
    let count = questions.len();
    let ask = |(at, question)| client(question, begun + wait(question, warmup, at, count), from, until);
    let mut clients: JoinSet<Seen> = questions.iter().enumerate().map(ask).collect();
    let mut watched = arguments.cpu;
    if !watched.is_empty() {
        watched.push(Watched::this("load"));
    }
    sleep_until(from).await;
    let before = process::cpu(&watched);
    sleep_until(until).await;
    let used = process::between(&before, &process::cpu(&watched));
    let peaks = process::peak_mib(&arguments.rss);
    let mut all = Seen::default();
    while let Some(seen) = clients.join_next().await {
        all.add(seen.map_err(|cause| Fault::Usage(format!("a client of the load stopped: {cause}")))?);
    }
    let cell = Cell { peak_mib: peaks, ..all.cell(arguments.name, count, arguments.seconds, used) };
    let line = serde_json::to_string(&cell).map_err(|cause| Fault::Usage(format!("the result cannot be written: {cause}")))?;
    println!("{line}");
    Ok(())
}

/// How long a client waits before it begins: not at all, but where gaps are measured its share of the warm-up.
fn wait(question: &Question, warmup: Duration, at: usize, count: usize) -> Duration {
    if question.chunk.is_empty() {
        return Duration::ZERO;
    }
    #[expect(clippy::cast_precision_loss, reason = "clients are far below 2^52")]
    let share = at as f64 / count as f64;
    warmup.mul_f64(share)
}

/// What one client saw inside the window.
#[derive(Default)]
struct Seen {
    whole: Vec<Duration>,
    first_byte: Vec<Duration>,
    bytes: usize,
    gaps: Vec<Duration>,
    misses: BTreeMap<Miss, u64>,
}

async fn client(question: &'static Question, begin: Instant, from: Instant, until: Instant) -> Seen {
    sleep_until(begin).await;
    let mut client = Client::new(question);
    let mut seen = Seen::default();
    while Instant::now() < until {
        let outcome = client.ask().await;
        let now = Instant::now();
        let counts = now > from && now <= until;
        match outcome {
            Ok(answer) if counts => {
                seen.whole.push(answer.whole);
                seen.first_byte.push(answer.first_byte);
                seen.bytes += answer.bytes;
                seen.gaps.extend(answer.gaps);
            }
            Ok(_) => {}
            Err(miss) => {
                if counts {
                    *seen.misses.entry(miss).or_default() += 1;
                }
                // A server that refuses at once must not turn the load into a busy loop.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    seen
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.whole.extend(other.whole);
        self.first_byte.extend(other.first_byte);
        self.bytes += other.bytes;
        self.gaps.extend(other.gaps);
        for (miss, count) in other.misses {
            *self.misses.entry(miss).or_default() += count;
        }
    }

    fn cell(mut self, name: String, clients: usize, seconds: f64, cpu: BTreeMap<String, f64>) -> Cell {
        self.whole.sort_unstable();
        self.first_byte.sort_unstable();
        self.gaps.sort_unstable();
        let answers = self.whole.len();
        #[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^52")]
        let per = |total: f64| if answers == 0 { 0.0 } else { total / answers as f64 };
        #[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^52")]
        let per_second = answers as f64 / seconds;
        #[expect(clippy::cast_precision_loss, reason = "bytes read in a minute are far below 2^52")]
        let bytes = self.bytes as f64;
        Cell {
            name,
            clients,
            seconds,
            answers,
            errors: self.misses.values().sum(),
            kinds: self.misses.iter().map(|(miss, count)| (miss.to_string(), *count)).collect(),
            per_second,
            p50_ms: quantile(&self.whole, 50),
            p99_ms: quantile(&self.whole, 99),
            first_byte_p50_ms: quantile(&self.first_byte, 50),
            bytes: per(bytes),
            cpu_ms: cpu.into_iter().map(|(process, seconds)| (process, per(seconds * 1000.0))).collect(),
            peak_mib: BTreeMap::new(),
            gaps: gaps(&self.gaps),
        }
    }
}

/// What is told of sorted gaps, if any were measured.
fn gaps(sorted: &[Duration]) -> Option<Gaps> {
    let count = sorted.len();
    (count > 0).then(|| Gaps { count, p50_ms: quantile(sorted, 50), p99_ms: quantile(sorted, 99), max_ms: quantile(sorted, 100) })
}

/// The percentile of sorted durations by nearest rank, in milliseconds; 0 when there are none.
fn quantile(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).map_or(0.0, |duration| duration.as_secs_f64() * 1000.0)
}

/// What one client asks; the first is client 0.
fn question(arguments: &Arguments, client: usize) -> Result<Question, Fault> {
    let of_client = |text: &str| text.replace("{client}", &(client + 1).to_string());
    let url = of_client(&arguments.url);
    let url: Uri = url.parse().map_err(|_| Fault::Usage(format!("{url:?} is not an address")))?;
    let address = loopback(&url)?;
    let body = match arguments.body.as_deref().map(|body| (body, body.strip_prefix('@'))) {
        None => None,
        Some((_, Some(path))) => Some(read(path)?.into()),
        Some((body, None)) => Some(Bytes::from(body.to_owned())),
    };
    let mut headers = HeaderMap::new();
    headers.insert(HOST, value("host", &address.to_string())?);
    let file = arguments.headers_file.as_ref().map(|path| read(&of_client(path))).transpose()?.unwrap_or_default();
    for header in arguments.headers.iter().map(String::as_str).chain(file.lines().filter(|line| !line.is_empty())) {
        let (name, text) = header.split_once(':').ok_or_else(|| Fault::Usage("a header is written `name: value`".into()))?;
        let known = name.trim().parse::<HeaderName>().map_err(|_| Fault::Usage(format!("{name:?} is not a header's name")))?;
        headers.append(known, value(name, text.trim())?);
    }
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    Ok(Question {
        address,
        uri: path.parse().map_err(|_| Fault::Usage(format!("{path:?} is not a path")))?,
        method: if body.is_some() { Method::POST } else { Method::GET },
        headers,
        body: body.unwrap_or_default(),
        status: arguments.status,
        expect: Bytes::from(arguments.expect.clone()),
        chunk: Bytes::from(arguments.gaps.clone()),
        deadline: Duration::from_secs(30),
    })
}

fn value(name: &str, text: &str) -> Result<HeaderValue, Fault> {
    // The value may be a token: it is never shown.
    HeaderValue::from_str(text).map_err(|_| Fault::Usage(format!("the value of header {name:?} has characters that a header cannot carry")))
}

fn read(path: &str) -> Result<String, Fault> {
    std::fs::read_to_string(path).map_err(|cause| Fault::Io { what: format!("{path} cannot be read"), cause })
}

/// The address of a URL, which must name loopback: this is no tool to load somebody else's server with.
fn loopback(url: &Uri) -> Result<SocketAddr, Fault> {
    let refuse = || Fault::Usage(format!("{url} is not http://127.0.0.1:PORT/…: the load goes to loopback only"));
    if url.scheme_str() != Some("http") {
        return Err(refuse());
    }
    let host = url.host().ok_or_else(refuse)?;
    let ip: IpAddr = if host == "localhost" { IpAddr::from([127, 0, 0, 1]) } else { host.parse().map_err(|_| refuse())? };
    if !ip.is_loopback() {
        return Err(refuse());
    }
    Ok(SocketAddr::new(ip, url.port_u16().unwrap_or(80)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_loaded() {
        assert_eq!(loopback(&Uri::from_static("http://127.0.0.1:8787/x")).unwrap(), SocketAddr::from(([127, 0, 0, 1], 8787)));
        assert_eq!(loopback(&Uri::from_static("http://localhost:1/")).unwrap(), SocketAddr::from(([127, 0, 0, 1], 1)));
        for url in ["https://127.0.0.1/", "http://192.0.2.1/", "http://example.com/", "/turns"] {
            assert!(loopback(&Uri::from_static(url)).is_err(), "{url}");
        }
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let sorted: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert!((quantile(&sorted, 50) - 100.0).abs() < 1e-9);
        assert!((quantile(&sorted, 99) - 198.0).abs() < 1e-9);
        assert!((quantile(&sorted[..1], 99) - 1.0).abs() < 1e-9);
        assert!(quantile(&[], 50).abs() < 1e-9);
    }

    #[test]
    fn each_client_may_have_an_address_of_its_own() {
        let line = ["load", "--name", "a", "--url", "http://127.0.0.1:8787/workspaces/w-{client}/turns", "--body", "{}"];
        let arguments = <Alone as clap::Parser>::parse_from(line).arguments;
        let paths = [0, 15].map(|client| question(&arguments, client).unwrap().uri.to_string());
        assert_eq!(paths, ["/workspaces/w-1/turns", "/workspaces/w-16/turns"]);
    }

    #[derive(clap::Parser)]
    struct Alone {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn gaps_are_told_where_there_are_any() {
        let sorted: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(gaps(&sorted), Some(Gaps { count: 200, p50_ms: 100.0, p99_ms: 198.0, max_ms: 200.0 }));
        assert_eq!(gaps(&[]), None);
    }
}
