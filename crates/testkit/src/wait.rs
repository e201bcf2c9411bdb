//! Waiting for a state, never for time.

use std::time::Duration;

use tokio::time::Instant;

/// How often a state is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Looks again and again until `look` finds what it wants. `Err` says what was seen instead; the last one is part of the
/// failure when `limit` has passed.
pub async fn until<T, F, Fut>(what: &str, limit: Duration, mut look: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now() + limit;
    let mut seen = "nothing: the first look did not end".to_owned();
    while Instant::now() < deadline {
        match tokio::time::timeout_at(deadline, look()).await {
            Ok(Ok(found)) => return found,
            Ok(Err(other)) => seen = other,
            Err(late) => seen = format!("{seen}; then a look that took too long ({late})"),
        }
        tokio::time::sleep(LOOK).await;
    }
    panic!("{what}: not within {limit:?}; last seen: {seen}")
}

/// Waits until `is_so` holds.
pub async fn until_true(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) {
    until(what, limit, || std::future::ready(if is_so() { Ok(()) } else { Err("not yet".to_owned()) })).await;
}
