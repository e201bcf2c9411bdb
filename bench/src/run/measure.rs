//! One measurement: load through a place, and what it cost there.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::bed::{Fresh, Hop, Place};
use super::children::{Program, finish};
use super::interrupt::Interrupt;
use super::kernel;
use crate::figure::float;
use crate::tool::Offer;
use crate::{Outcome, settings};

/// Beyond the time of the load: what a generator may take to begin and end.
const GRACE: Duration = Duration::from_secs(20);
/// Connections at saturation.
const CONNECTIONS: u32 = 32;
/// Requests per second where latency is measured, and over how many connections.
const RATE: u32 = 2000;
const RATE_CONNECTIONS: u32 = 16;
/// Bytes of every answer, at least.
const BODY: u64 = 100;
/// How long 10 000 connections may take.
const HOLDING: Duration = Duration::from_mins(2);

/// Microseconds on a processor per request.
pub(crate) fn requests(place: &Place, path: &str, time: Duration, interrupt: &Interrupt) -> Outcome<f64> {
    let url = format!("http://{}{path}", place.address);
    let wrk = |time: Duration| {
        let mut command = place.client("wrk");
        // wrk counts whole seconds.
        let seconds = time.as_secs().max(1);
        command.args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{seconds}s"), &url]);
        command
    };
    let before = kernel::cpu(&place.pids)?;
    let said = finish(&mut wrk(time), time + GRACE, interrupt)?;
    let used = kernel::cpu(&place.pids)? - before;
    let served = wrk_served(&said)?;
    Ok(float(used) / 1000.0 / float(served))
}

/// How many requests wrk saw served. Any that failed make the measurement worthless.
fn wrk_served(said: &str) -> Outcome<u64> {
    let bad = said.lines().find(|line| line.contains("Non-2xx") || line.contains("Socket errors"));
    if let Some(bad) = bad {
        return Err(format!("wrk: {}", bad.trim()));
    }
    let line = said.lines().find(|line| line.contains(" requests in ")).unwrap_or_default();
    positive(line.split_whitespace().next().and_then(|word| word.parse().ok()), said)
}

fn positive(count: Option<u64>, said: &str) -> Outcome<u64> {
    count.filter(|count| *count > 0).ok_or_else(|| format!("nothing was served: {said}"))
}

/// Microseconds on a processor per HTTP/2 request.
pub(crate) fn http2(place: &Place, hop: Hop, time: Duration, folder: &Path, interrupt: &Interrupt) -> Outcome<f64> {
    let mut command = place.client("h2load");
    let seconds = time.as_secs().max(1);
    command.args(["-t1", "-c4", "-m8", &format!("-D{seconds}")]);
    let path = if hop == Hop::PairGrpc {
        let body = folder.join("call.bin");
        // A message of 100 bytes behind its prefix: not compressed, its length.
        let message = [&[0, 0, 0, 0, 100][..], &[b'x'; 100]].concat();
        std::fs::write(&body, message).map_err(|error| format!("{}: {error}", body.display()))?;
        command.arg("-d").arg(&body).args(["-H", "content-type: application/grpc", "-H", "te: trailers"]);
        "/bench.Echo/Unary"
    } else {
        "/"
    };
    command.arg(format!("http://{}{path}", place.address));
    let before = kernel::cpu(&place.pids)?;
    let said = finish(&mut command, time + GRACE, interrupt)?;
    let used = kernel::cpu(&place.pids)? - before;
    Ok(float(used) / 1000.0 / float(h2load_served(&said)?))
}

/// `requests: 9 total, 9 started, 9 done, 9 succeeded, 0 failed, 0 errored, 0 timeout`.
fn h2load_served(said: &str) -> Outcome<u64> {
    let line = said.lines().find(|line| line.starts_with("requests:")).unwrap_or_default();
    let count = |word: &str| {
        let part = line.trim_start_matches("requests:").split(',').find(|part| part.ends_with(word))?;
        part.trim().trim_end_matches(word).trim().parse::<u64>().ok()
    };
    if count("failed") != Some(0) || count("errored") != Some(0) {
        return Err(format!("h2load: {line}"));
    }
    let served = positive(count("succeeded"), said)?;
    // A gRPC error is a success of HTTP; that every answer had its body tells them apart.
    let body = said.lines().find(|line| line.starts_with("traffic:")).and_then(|line| {
        let data = line.rsplit(',').next()?;
        data.split_once('(')?.1.split_once(')')?.0.parse::<u64>().ok()
    });
    if body.is_none_or(|bytes| bytes < served * BODY) {
        return Err(format!("h2load: answers without their body: {said}"));
    }
    Ok(served)
}

/// Median and 99th percentile, in microseconds, at a fixed rate.
pub(crate) fn latency(place: &Place, time: Duration, interrupt: &Interrupt) -> Outcome<(f64, f64)> {
    let address = place.address;
    let answer = tool(
        place.client(settings::own_program()?),
        &["open-loop", &address.to_string(), "/", &RATE_CONNECTIONS.to_string(), &RATE.to_string(), &seconds(time)],
        time + GRACE,
        interrupt,
    )?;
    if answer["errors"] != 0 {
        return Err(format!("at {RATE} requests per second through {address}: {answer}"));
    }
    Ok((float(number(&answer, "p50")?), float(number(&answer, "p99")?)))
}

/// Microseconds on a processor per handshake with its request.
pub(crate) fn handshakes(
    place: &Place,
    identity: &Path,
    offer: Offer,
    time: Duration,
    interrupt: &Interrupt,
) -> Outcome<f64> {
    let (address, identity) = (place.address.to_string(), identity.display().to_string());
    let before = kernel::cpu(&place.pids)?;
    let answer = tool(
        place.client(settings::own_program()?),
        &["handshake", &address, &identity, &offer.to_string(), &seconds(time)],
        time + GRACE,
        interrupt,
    )?;
    let used = kernel::cpu(&place.pids)? - before;
    Ok(float(used) / 1000.0 / float(number(&answer, "done")?.max(1)))
}

/// Nanoseconds on a processor per byte.
pub(crate) fn bytes(place: &Place, time: Duration, interrupt: &Interrupt) -> Outcome<f64> {
    let address = place.address.to_string();
    let before = kernel::cpu(&place.pids)?;
    let answer = tool(
        place.client(settings::own_program()?),
        &["pump", &address, "4", &seconds(time)],
        time + GRACE,
        interrupt,
    )?;
    let used = kernel::cpu(&place.pids)? - before;
    Ok(float(used) / float(number(&answer, "bytes")?.max(1)))
}

/// KiB of memory per idle connection at a new proxy.
pub(crate) fn idle(fresh: &Fresh, count: u32, identity: Option<&Path>, interrupt: &Interrupt) -> Outcome<f64> {
    let before = kernel::resident(&fresh.place.pids)?;
    let mut command = Command::new(settings::own_program()?);
    command.args(["hold", &fresh.place.address.to_string(), &count.to_string()]);
    if let Some(folder) = identity {
        command.arg(folder);
    }
    let mut holder = Program::piped(&mut command)?;
    let open = held(&mut holder, interrupt)?;
    let after = kernel::resident(&fresh.place.pids)?;
    if open < u64::from(count) * 3 / 4 {
        return Err(format!("only {open} of {count} connections were held"));
    }
    Ok((float(after) - float(before)) / float(open))
}

/// How many connections a holder still has once it has opened all.
fn held(holder: &mut Program, interrupt: &Interrupt) -> Outcome<u64> {
    let child = holder.child();
    let (Some(mut ask), Some(answer)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("the holder has no pipes".to_owned());
    };
    // The question waits in the pipe until the last connection stands.
    ask.write_all(b"how many\n").map_err(|error| format!("holder: {error}"))?;
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        // A holder that failed closes its pipe: then the line is empty.
        let _told =
            BufReader::new(answer).read_line(&mut line).and_then(|_| tell.send(line).map_err(std::io::Error::other));
    });
    let line = super::children::until("connections are held", HOLDING, interrupt, || {
        told.try_recv().map_err(|_empty| "still opening".to_owned())
    })?;
    drop(ask);
    let answer: Value = serde_json::from_str(&line).map_err(|_no_answer| "the holder failed".to_owned())?;
    number(&answer, "open")
}

/// Runs one of our tools and reads its answer.
fn tool(mut own: Command, words: &[&str], limit: Duration, interrupt: &Interrupt) -> Outcome<Value> {
    let said = finish(own.args(words), limit, interrupt)?;
    serde_json::from_str(&said).map_err(|error| format!("{words:?}: {error}: {said}"))
}

fn number(answer: &Value, key: &str) -> Outcome<u64> {
    answer.get(key).and_then(Value::as_u64).ok_or_else(|| format!("no `{key}` in {answer}"))
}

fn seconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_with_failures_is_no_measurement() {
        let good = "Running 1s test @ http://127.0.0.1:1/\n  4711 requests in 1.00s, 1.00MB read\nRequests/sec: 4711\n";
        assert_eq!(wrk_served(good), Ok(4711));
        assert!(wrk_served(&format!("{good}  Non-2xx or 3xx responses: 2\n")).is_err());
        assert!(wrk_served("  0 requests in 1.00s, 0B read\n").is_err());
        let good = "requests: 12 total, 12 started, 11 done, 11 succeeded, 0 failed, 0 errored, 0 timeout\n\
                    traffic: 2KB (2100) total, 1KB (1000) headers (space savings 9.00%), 1.07KB (1100) data\n";
        assert_eq!(h2load_served(good), Ok(11));
        assert!(h2load_served(&good.replace("0 failed", "3 failed")).is_err());
        assert!(h2load_served(&good.replace("(1100)", "(1099)")).is_err());
    }
}
