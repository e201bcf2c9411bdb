//! The corpus against other proxies: who forwards what. The page `docs/reference/http1-strictness.md` is written by this test with
//! `HMS_BLESS=1`, and compared with what it finds otherwise.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hms_http1::Reject;
use hms_testkit::http1::liar::Liar;
use hms_testkit::http1::message::{self, Kind};
use hms_testkit::http1::raw::Raw;
use hms_testkit::mesh::Mesh;
use hms_testkit::processes::Process;
use hms_testkit::{binaries, figure, scenario, settings, wait};

use crate::corpus::{self, Case};
use crate::stack::GET;

/// As each is set up by its own manual; nothing is made stricter or laxer. A client that closes its side still gets its answers.
const NGINX: &str = "daemon off; user root; worker_processes 1; pid nginx.pid; error_log stderr crit;
events { worker_connections 1000; }
http {
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server {
        listen unix:FOLDER/door;
        location / {
            proxy_http_version 1.1;
            proxy_ignore_client_abort on;
            proxy_pass http://BACKEND;
        }
    }
}
";
const HAPROXY: &str = "defaults
    mode http
    timeout connect 5s
    timeout client 3s
    timeout server 3s
    option http-server-close
listen door
    bind unix@FOLDER/door
    server backend BACKEND
";

/// Longer than any of them takes for an answer.
const SETTLED: Duration = Duration::from_millis(25);

/// What `HAProxy` forwards about every tenth time: it finds the trailer wrong, or has sent it on by then.
const AT_TIMES: &str = "chunk-trailer-space-before-colon";

/// Another proxy before a liar.
struct Other {
    version: String,
    liar: Liar,
    door: PathBuf,
    _process: Process,
    _mesh: Mesh,
}

impl Other {
    async fn start(program: &str, template: &str, arguments: fn(&Path) -> Vec<String>) -> Self {
        let mesh = Mesh::new();
        let liar = Liar::start().await;
        let folder = mesh.project().to_path_buf();
        let folder_name = folder.display().to_string();
        let text = template.replace("FOLDER", &folder_name).replace("BACKEND", &liar.address().to_string());
        mesh.write("config", text);
        let mut asked = mesh.command(program);
        asked.arg("-v");
        let said = mesh.run(asked).await;
        let words = said.out + &said.err;
        let digits =
            words.split([' ', '/', '-', '\n']).find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
        let mut command = mesh.command(program);
        command.args(arguments(&folder));
        let process = Process::start(command, mesh.root().join("other.log"));
        let door = folder.join("door");
        wait::until(&format!("{program} listens"), Duration::from_secs(10), || {
            std::future::ready(if door.exists() { Ok(()) } else { Err(process.output()) })
        })
        .await;
        Self { version: digits.unwrap_or("?").to_owned(), liar, door, _process: process, _mesh: mesh }
    }

    /// The laxest of several tries: what is found to be wrong behind a head races with the connection that the head is sent on by.
    async fn verdict(&self, case: &Case) -> (usize, String) {
        let mut laxest = (0, String::new());
        for _ in 0..if case.name.starts_with("chunk-") { 3 } else { 1 } {
            laxest = laxest.max(self.once(case).await);
        }
        laxest
    }

    /// How many whole requests the liar got of a case, and in words what became of it.
    async fn once(&self, case: &Case) -> (usize, String) {
        let known = self.liar.connections();
        let mut raw = Raw::unix(&self.door).await;
        let _refused_early = raw.send(&case.bytes).await;
        // Some take an early end for a client that went away, and drop what they have begun: they get time to answer first.
        if raw.rest_within(SETTLED).await.is_none() {
            raw.finish().await;
        }
        let (answers, _ended) = raw.rest().await;
        let kind = if case.bytes.starts_with(b"HEAD") { Kind::AnswerToHead } else { Kind::Answer };
        let refusal = message::all(answers, kind).last().map(message::Message::status).filter(|status| *status >= 400);
        // Connections are taken in their order: when this one is answered, everything before it is known.
        let mut last = Raw::plain(self.liar.address()).await;
        assert!(last.send(GET).await && last.answer(Kind::Answer).await.is_ok());
        let ours = self.liar.connections() - 1;
        for number in known..ours {
            let _ended = self.liar.until_ended(number).await;
        }
        let contacts = self.liar.contacts();
        let whole = contacts[known..ours].iter().map(hms_testkit::http1::liar::Contact::whole).sum();
        let begun = contacts[known..ours].iter().filter(|contact| !contact.bytes.is_empty()).count();
        let mut words = vec!["forwards".to_owned(); whole];
        if begun > whole {
            words.push("begins".to_owned());
        }
        match refusal {
            Some(status) => words.push(status.to_string()),
            None if words.is_empty() => words.push("closes".to_owned()),
            None => {}
        }
        (whole, words.join(" "))
    }
}

/// Why we answer as we do: the words of the corpus, or the rule with its section.
fn why(case: &Case) -> String {
    let word = case.ours.split(' ').next_back().unwrap_or_default();
    let rule = Reject::ALL.iter().find(|rule| format!("{rule:?}") == word);
    match (rule, case.why.is_empty()) {
        (_, false) => case.why.clone(),
        (Some(rule), true) => format!("{rule} ({})", rule.section()),
        (None, true) => String::new(),
    }
}

/// What hyper hands to its service, in the words of the table.
fn hyper(case: &Case) -> (usize, String) {
    let whole = case.hyper.split(' ').filter(|word| *word == "accept").count();
    (whole, case.hyper.replace("accept", "forwards").replace("head", "begins").replace("close", "closes"))
}

#[test]
fn the_table_of_who_forwards_what_is_up_to_date() {
    scenario(Duration::from_mins(5), async {
        let nginx = Other::start("nginx", NGINX, |folder| {
            let folder = folder.display().to_string();
            vec!["-p".to_owned(), folder.clone(), "-c".to_owned(), format!("{folder}/config")]
        });
        let nginx = Box::pin(nginx).await;
        let arguments =
            |folder: &Path| vec!["-db".to_owned(), "-f".to_owned(), folder.join("config").display().to_string()];
        let haproxy = Box::pin(Other::start("haproxy", HAPROXY, arguments)).await;
        let (mut rows, mut refused, mut forwarded) = (String::new(), 0, [0; 3]);
        for case in corpus::cases() {
            let accepted = case.ours.split(' ').filter(|word| *word == "accept").count();
            let mut seen = [hyper(&case), nginx.verdict(&case).await, haproxy.verdict(&case).await];
            if case.name == AT_TIMES {
                let [_, _, by_haproxy] = &mut seen;
                assert!(["400", "forwards"].contains(&by_haproxy.1.as_str()), "{by_haproxy:?}");
                *by_haproxy = (1, "400, at times forwards".to_owned());
            }
            if case.ours.split(' ').count() > accepted {
                refused += 1;
                for (count, (whole, _)) in forwarded.iter_mut().zip(&seen) {
                    *count += usize::from(*whole > accepted);
                }
            }
            let ours = case.ours.replace("accept", "forwards");
            let others: Vec<&str> = seen.iter().map(|(_, words)| words.as_str()).collect();
            writeln!(rows, "| {} | {ours} | {} | {} |", case.name, others.join(" | "), why(&case).replace('|', "\\|"))
                .unwrap();
        }
        let [by_hyper, by_nginx, by_haproxy] = forwarded;
        let (nginx, haproxy) = (nginx.version, haproxy.version);
        figure("must be refused, forwarded by hyper, nginx, HAProxy", format!("{refused}: {forwarded:?}"));
        let page = format!(
            "{HEAD}\nOf {refused} cases that must be refused, a whole request is passed on by: ours 0, plain hyper 1.x {by_hyper}, \
             nginx {nginx} {by_nginx}, HAProxy {haproxy} {by_haproxy}.\n\n\
             | case | ours | hyper | nginx | HAProxy | why |\n| --- | --- | --- | --- | --- | --- |\n{rows}"
        );
        let path = binaries::workspace().join("docs/reference/http1-strictness.md");
        if settings::bless() {
            std::fs::write(&path, page).unwrap();
            return;
        }
        let stands = std::fs::read_to_string(&path).unwrap_or_default();
        let differs = stands.lines().zip(page.lines()).find(|(stands, is)| stands != is);
        assert!(stands == page, "{} is not what is found ({differs:?}); HMS_BLESS=1 writes it anew", path.display());
    });
}

const HEAD: &str = "# How strictly HTTP/1.1 is read

Every case of `crates/http1/tests/corpus/requests.txt`, sent on one connection whose sending side is then closed, and what becomes of it. *forwards*:
a whole request reaches the application, once per word. *begins*: a part of one does. A number is the status of the refusal, a word behind it our rule.
*closes*: nothing is forwarded, and nothing is answered. The bytes of a case stand in the corpus.

nginx and HAProxy run as Debian packages them, with nothing but a listener and a backend configured; hyper is a server without a proxy behind it.

Generated by the test `http1::strictness`; written anew by `HMS_BLESS=1 cargo test -p hms-testkit --test http1 strictness`.
";
