//! What the gateway asks of a request before it looks where it goes.

use hms_model::mesh::Mesh;
use http::header::AUTHORIZATION;

use super::{Going, Question, Step, stop};

/// The token of a request from outside. Its signature and claims are for a gateway to judge, not for whoever asks why.
pub(super) fn token(mesh: &Mesh, question: &Question<'_>) -> Going<Step> {
    let gateway = &mesh.gateway;
    let mut credentials = question.head.fields.all(&AUTHORIZATION);
    match (credentials.next(), credentials.next()) {
        (None, _) if gateway.is_open => {
            Ok(Step::note("token", "requests without a token are taken: the stamp jwt is off").fix("hms set jwt on"))
        }
        (None, _) => {
            // Whoever asks for the way of a request seldom has its token at hand: the rest is told as if it had one.
            let step = Step::note("token", "without an Authorization: Bearer token it ends here with 401");
            Ok(Step { code: 3101, ..step.fix("hms jwt issue --sub NAME") })
        }
        (Some(_), Some(_)) => stop(Step::stop("token", 3102, "the request carries several credentials")),
        (Some(_), None) if gateway.issuers.is_empty() => {
            let step = Step::stop("token", 3105, "the gateway takes nobody's tokens");
            stop(step.fix("name an issuer in mesh.yaml: gateway: {jwt: [...]}"))
        }
        (Some(_), None) => {
            let taken: Vec<String> = gateway
                .issuers
                .iter()
                .map(|own| format!("{} for {}", own.issuer, own.audiences.join(" or ")))
                .collect();
            let text = format!("a token is there; the gateway takes those of {}, if they hold", taken.join(", "));
            Ok(Step::note("token", text))
        }
    }
}
