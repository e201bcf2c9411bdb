//! Asking proxies what they remember of a request.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hms_wire::proto::hms::v1;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Live, ProxyKey, Session, message};

/// How long proxies may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// What one proxy may tell of one trace.
const DECISIONS: usize = 64;
/// Questions that one proxy may have open.
const OPEN: usize = 16;

impl Live {
    /// What every proxy remembers of the requests of a trace, by what its id begins with. A proxy that does not answer in time is
    /// left out.
    pub async fn recall(&self, trace: &str) -> Vec<(ProxyKey, v1::Decision)> {
        let mut waiting = Vec::new();
        for (key, proxy) in self.0.proxies.lock().iter_mut().filter(|(_, proxy)| proxy.recalls.len() < OPEN) {
            let request_id = self.0.next.fetch_add(1, Ordering::Relaxed);
            let recall = v1::Recall { request_id, trace: trace.to_owned() };
            let (answer, receiver) = oneshot::channel();
            if proxy.outbox.try_send(message(v1::control_message::Kind::Recall(recall))).is_ok() {
                proxy.recalls.insert(request_id, answer);
                waiting.push((key.clone(), request_id, receiver));
            }
        }
        let deadline = Instant::now() + PATIENCE;
        let mut found = Vec::new();
        for (key, request_id, answer) in waiting {
            match tokio::time::timeout_at(deadline, answer).await {
                Ok(Ok(decisions)) => found.extend(decisions.into_iter().map(|decision| (key.clone(), decision))),
                // It went away.
                Ok(Err(_gone)) => {}
                Err(_late) => {
                    let mut proxies = self.0.proxies.lock();
                    if let Some(proxy) = proxies.get_mut(&key) {
                        proxy.recalls.remove(&request_id);
                    }
                }
            }
        }
        found
    }
}

impl Session {
    /// Takes an answer to whoever waits for it.
    pub(super) fn recalled(&self, mut recalled: v1::Recalled) {
        recalled.decisions.truncate(DECISIONS);
        let mut answer = None;
        self.update(|proxy| answer = proxy.recalls.remove(&recalled.request_id));
        if let Some(answer) = answer {
            drop(answer.send(recalled.decisions));
        }
    }
}
