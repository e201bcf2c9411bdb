//! Asking endpoints without a proxy whether they live, because nobody else does. Only a connection is opened, to the registered
//! address, and nothing is sent or read: so a probe can neither be redirected nor made to amplify (reliability J4).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use hms_model::resource::ResourceKey;
use hms_model::workload::{Endpoint, Health, Registrar, Transport};
use rand::{Rng as _, SeedableRng as _};

use super::Registry;

/// Time between two probes of an endpoint, give or take a tenth.
const EVERY: Duration = Duration::from_secs(5);
/// How long a connect may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Failures in a row that make an endpoint unhealthy; one success makes it healthy again.
const FAILURES: u32 = 2;
/// Probes at the same time.
const AT_ONCE: usize = 32;

/// Probes for ever.
pub(super) async fn run(registry: Registry) {
    let mut failures: BTreeMap<ResourceKey, u32> = BTreeMap::new();
    let mut dice = rand::rngs::SmallRng::from_os_rng();
    loop {
        tokio::time::sleep(EVERY.mul_f64(dice.random_range(0.9..1.1))).await;
        let endpoints = probed(&registry);
        failures.retain(|key, _| endpoints.contains_key(key));
        let probes = stream::iter(endpoints).map(|(key, endpoint)| async move {
            let answers = answers(SocketAddr::new(endpoint.address.ip, endpoint.address.port)).await;
            (key, endpoint, answers)
        });
        let mut results = probes.buffer_unordered(AT_ONCE);
        while let Some((key, endpoint, answers)) = results.next().await {
            let health = judge(failures.entry(key).or_default(), answers, endpoint.health);
            if health != endpoint.health
                && let Err(error) = registry.set_health(&endpoint.service, &endpoint.id, health).await
            {
                tracing::warn!(%error, service = %endpoint.service, "cannot note the health of an endpoint");
            }
        }
    }
}

/// Endpoints that somebody registered and that have no proxy. One that is draining stays so.
fn probed(registry: &Registry) -> BTreeMap<ResourceKey, Arc<Endpoint>> {
    let state = registry.0.state.lock();
    let plain = |endpoint: &Endpoint| {
        endpoint.source == Registrar::Api
            && endpoint.transport == Transport::Plain
            && endpoint.health != Health::Draining
    };
    let endpoints = state.endpoints.iter().filter(|(_, endpoint)| plain(endpoint));
    endpoints.map(|(key, endpoint)| (key.clone(), Arc::clone(endpoint))).collect()
}

async fn answers(address: SocketAddr) -> bool {
    let connect = tokio::net::TcpStream::connect(address);
    matches!(tokio::time::timeout(PATIENCE, connect).await, Ok(Ok(_connection)))
}

/// What an endpoint is after a probe.
fn judge(failures: &mut u32, answers: bool, before: Health) -> Health {
    if answers {
        *failures = 0;
        return Health::Healthy;
    }
    *failures = failures.saturating_add(1);
    if *failures >= FAILURES { Health::Unhealthy } else { before }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_failures_in_a_row_make_an_endpoint_unhealthy_and_one_answer_heals_it() {
        let mut failures = 0;
        assert_eq!(judge(&mut failures, false, Health::Healthy), Health::Healthy);
        assert_eq!(judge(&mut failures, true, Health::Healthy), Health::Healthy);
        assert_eq!(judge(&mut failures, false, Health::Healthy), Health::Healthy);
        assert_eq!(judge(&mut failures, false, Health::Healthy), Health::Unhealthy);
        assert_eq!(judge(&mut failures, true, Health::Unhealthy), Health::Healthy);
    }
}
