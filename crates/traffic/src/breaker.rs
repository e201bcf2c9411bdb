//! The breaker of a service, which is nothing but the state of its endpoints (ruling R3): while one takes requests it is
//! closed; when none does, calls fail at once.

use crate::clock::Moment;
use crate::outlier::Phase;

/// One endpoint, as far as the breaker cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointView {
    /// Whether the registry says that it can be given work: healthy; not stopped, not draining.
    pub usable_health: bool,
    /// Whether this proxy has ejected it.
    pub phase: Phase,
}

/// Where a service's breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceBreaker {
    /// Requests pass.
    Closed,
    /// Requests are refused.
    Open {
        /// When the first of its endpoints may be probed; `None` when there is none to wait for (all stopped, or none yet).
        until: Option<Moment>,
    },
    /// A probe is due or under way, all else is refused.
    HalfOpen,
}

impl ServiceBreaker {
    /// The word shown to people (ruling R3).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "CLOSED",
            Self::Open { .. } => "OPEN",
            Self::HalfOpen => "HALF-OPEN",
        }
    }
}

/// The breaker of a service with these endpoints. A `declared` service without any usable endpoint is open. Of a service that
/// nobody declared and that has no endpoint there is nothing to break: it is closed, and the call fails for another reason.
pub fn phase(endpoints: impl Iterator<Item = EndpointView>, declared: bool) -> ServiceBreaker {
    let mut found = if declared { ServiceBreaker::Open { until: None } } else { ServiceBreaker::Closed };
    for endpoint in endpoints {
        let own = match (endpoint.usable_health, endpoint.phase) {
            (true, Phase::Closed) => return ServiceBreaker::Closed,
            (true, Phase::HalfOpen) => ServiceBreaker::HalfOpen,
            (true, Phase::Open { until }) => ServiceBreaker::Open { until: Some(until) },
            (false, _) => ServiceBreaker::Open { until: None },
        };
        found = sooner(found, own);
    }
    found
}

/// Of two refusing states the one that promises more; `Closed` only stands for "no endpoint seen yet" here.
fn sooner(found: ServiceBreaker, own: ServiceBreaker) -> ServiceBreaker {
    match (found, own) {
        (ServiceBreaker::HalfOpen, _) | (_, ServiceBreaker::HalfOpen) => ServiceBreaker::HalfOpen,
        (ServiceBreaker::Open { until: one }, ServiceBreaker::Open { until: other }) => {
            ServiceBreaker::Open { until: [one, other].into_iter().flatten().min() }
        }
        (_, own) => own,
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    const NOON: Moment = Moment::from_micros(12);
    const EVENING: Moment = Moment::from_micros(18);

    fn view(usable_health: bool, phase: Phase) -> EndpointView {
        EndpointView { usable_health, phase }
    }

    fn of(endpoints: &[EndpointView]) -> ServiceBreaker {
        phase(endpoints.iter().copied(), true)
    }

    #[test]
    fn one_endpoint_that_takes_requests_keeps_the_breaker_closed() {
        let open = view(true, Phase::Open { until: NOON });
        assert_eq!(of(&[open, view(true, Phase::Closed), view(false, Phase::Closed)]), ServiceBreaker::Closed);
    }

    #[test]
    fn when_all_are_ejected_it_is_open_until_the_first_may_be_probed() {
        let views = [view(true, Phase::Open { until: EVENING }), view(true, Phase::Open { until: NOON })];
        assert_eq!(of(&views), ServiceBreaker::Open { until: Some(NOON) });
    }

    #[test]
    fn a_due_probe_makes_it_half_open() {
        let views = [view(true, Phase::Open { until: EVENING }), view(true, Phase::HalfOpen)];
        assert_eq!(of(&views), ServiceBreaker::HalfOpen);
    }

    #[test]
    fn a_declared_service_with_nothing_usable_is_open() {
        assert_eq!(of(&[]), ServiceBreaker::Open { until: None });
        assert_eq!(
            of(&[view(false, Phase::Closed), view(false, Phase::HalfOpen)]),
            ServiceBreaker::Open { until: None }
        );
    }

    #[test]
    fn an_undeclared_service_without_endpoints_has_nothing_to_break() {
        assert_eq!(phase(std::iter::empty(), false), ServiceBreaker::Closed);
        let stopped = std::iter::once(view(false, Phase::Closed));
        assert_eq!(phase(stopped, false), ServiceBreaker::Open { until: None });
    }
}
