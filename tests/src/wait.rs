//! Waiting for what happens in the background. Bounded: what does not come in time fails the test with what was seen last.

use std::time::Duration;

/// Asks again until the answer is `Some`, at most this long.
pub async fn until<T, F, E>(what: &str, at_most: Duration, mut look: F) -> T
where
    F: AsyncFnMut() -> Result<T, E>,
    E: std::fmt::Debug,
{
    let begin = tokio::time::Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if begin.elapsed() > at_most => panic!("waited {at_most:?} in vain for {what}; last seen: {seen:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Lets time pass. For tests whose matter is a delay; to wait for an effect is [`until`]'s.
pub async fn millis(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}
