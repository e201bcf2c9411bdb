//! The lab with containers of this machine's own engine (`cargo xtask engine`), which no other test needs.
#![expect(clippy::unwrap_used, reason = "a test that breaks fails")]

mod lab;
mod stage;

use std::time::Duration;

use hms_testkit::mesh::Mesh;
use hms_testkit::{scenario, settings, wait};

use lab::lab;
use stage::{SOON, Stage};

const LIMIT: Duration = Duration::from_mins(4);

impl Stage {
    /// With the machine's own docker.
    pub(crate) fn of_engine(image: &str) -> Self {
        let mut mesh = Mesh::new();
        for (name, value) in settings::engine() {
            mesh.set(name, &value);
        }
        Self::write(mesh, image, true)
    }

    /// The engine's name of a service's container.
    pub(crate) fn named(&self, service: &str) -> String {
        // Compose takes the folder's name for the project's.
        format!("{}-{service}-1", self.mesh.project().file_name().unwrap().to_str().unwrap())
    }

    /// When a service's container was started.
    pub(crate) async fn started(&self, service: &str) -> String {
        self.docker(&["inspect", "--format", "{{.State.StartedAt}}", &self.named(service)]).await
    }
}

#[test]
fn the_same_lab_runs_with_the_engine_of_this_machine() {
    let image = settings::engine_image().unwrap();
    scenario(LIMIT, async {
        let stage = Stage::of_engine(&image);
        lab(&stage).await;
        // Its network goes with a sidecar, and its application would stay behind in the old one.
        let started = stage.started("calc-svc").await;
        stage.docker(&["restart", &stage.named("calc-svc-hms")]).await;
        wait::until("its application follows", SOON, || async {
            let now = stage.started("calc-svc").await;
            if now == started { Err(now) } else { Ok(()) }
        })
        .await;
        stage.until("200").await;
        stage.down().await;
    });
}
