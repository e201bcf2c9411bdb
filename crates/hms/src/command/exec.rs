//! `hms exec`: a program beside a service's own, with the same view of the network.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use super::Context;
use crate::cli;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::laptop::environment::AppView;
use crate::laptop::intercept::Mode;
use crate::laptop::ipc::UnitReport;
use crate::laptop::sidecar::find_program;
use crate::laptop::supervise::all_units;
use crate::project::Project;

/// How long a program that was just started may take to be in its namespaces.
const ENTERED: Duration = Duration::from_secs(5);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The process of a service's program, once it lives in a network of its own.
async fn inside(project: &Project, service: &str) -> Option<u32> {
    let network = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    let own = network("self")?;
    let looking = async {
        loop {
            let units = all_units(project).await;
            let unit =
                units.iter().map(|(_, unit)| unit).find(|unit| unit.is_called(service) && unit.app_port.is_some());
            let running = unit.filter(|unit| unit.phase == "running" || unit.phase == "starting")?;
            let pid = running.app_pid.filter(|pid| network(&pid.to_string()).is_some_and(|network| network != own));
            if pid.is_some() {
                return pid;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(ENTERED, looking).await.ok().flatten()
}

pub(super) async fn run(context: Context<'_>, options: &cli::Exec) -> Result<Exit, Failure> {
    let service = context.program(&options.service)?;
    let project = context.project()?;
    let units: Vec<UnitReport> = all_units(&project).await.into_iter().map(|(_, unit)| unit).collect();
    let unit = units.iter().find(|unit| unit.is_called(&service) && unit.app_port.is_some()).ok_or_else(|| {
        crate::laptop::plan::unknown_service(&service, units.iter().map(|unit| unit.label().to_owned()))
    })?;
    let mode = unit.capture.as_ref().map_or(Mode::None, |capture| capture.mode);
    let mut command = Command::new(find_program(context.settings)?);
    match mode {
        Mode::Netns => {
            let pid = inside(&project, &service).await.ok_or_else(|| {
                Failure::new(Exit::Conflict, 1206, format!("{service} does not run, so there is nothing to enter"))
                    .fix(format!("hms start {service}"))
            })?;
            command.arg("__enter").arg(pid.to_string()).args(&options.command);
        }
        Mode::Notify => {
            let proxy = project.proxies_dir().join(&unit.proxy_folder);
            command.args(["__shepherd", "--mode", "notify", "--proxy"]).arg(proxy).arg("--").args(&options.command);
        }
        Mode::Joined => {
            use std::io::IsTerminal as _;
            command = Command::new("docker");
            command.args(["exec", if std::io::stdin().is_terminal() { "-it" } else { "-i" }]);
            command.arg(&unit.container).args(&options.command);
        }
        Mode::Env | Mode::Port | Mode::None => {
            let (program, arguments) = options
                .command
                .split_first()
                .ok_or_else(|| Failure::new(Exit::Usage, 1021, "no program was named").fix("hms exec SVC -- CMD"))?;
            command = Command::new(program);
            command.args(arguments);
            if let Some(outbound) = unit.outbound {
                let view = AppView {
                    service: &service,
                    version: unit.version.as_deref(),
                    port: unit.app_port.unwrap_or_default(),
                    outbound,
                    upstreams: &unit.upstreams,
                };
                command.envs(view.variables(mode));
            }
        }
    }
    let error = command.exec();
    Err(Failure::new(Exit::Child(126), 1103, "cannot start the program").because(error.to_string()))
}
