//! Answers that are kept.

use std::sync::Arc;
use std::time::Duration;

use hms_dns::Query;
use hms_dns::cache::Cache;
use hms_dns::forward::Heard;

use crate::message::{A, AAAA, forwarded, header, query, query_edns, question, record};

const SECOND: Duration = Duration::from_secs(1);

fn answer(query: &Query, host: &str, ttl: u32, records: u8) -> Arc<hms_dns::forward::Forwarded> {
    let mut bytes = [header(1, 0x8180, [1, records.into(), 0, 0]), question(host, A)].concat();
    for last in 0..records {
        bytes.extend(record(&[0xc0, 12], A, ttl, &[192, 0, 2, last]));
    }
    match query.hear(1, &bytes) {
        Heard::Answer(answer) => Arc::new(answer),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_answer_is_kept_for_as_long_as_it_holds() {
    let asked = forwarded(&query("example.com", A));
    let mut cache = Cache::default();
    cache.put(asked.key(), answer(&asked, "example.com", 30, 1), 100 * SECOND);
    assert_eq!(cache.get(&asked.key(), 100 * SECOND).map(|(_, age)| age), Some(0));
    assert_eq!(cache.get(&asked.key(), 129 * SECOND).map(|(_, age)| age), Some(29));
    assert!(cache.get(&asked.key(), 130 * SECOND).is_none());
    cache.clear();
    assert!(cache.get(&asked.key(), 100 * SECOND).is_none());
}

#[test]
fn an_answer_answers_its_own_question_only() {
    let asked = forwarded(&query("example.com", A));
    let mut cache = Cache::default();
    cache.put(asked.key(), answer(&asked, "example.com", 30, 1), SECOND);
    for (other, same) in [
        (query("EXAMPLE.com", A), true),
        (query("example.com", AAAA), false),
        (query("www.example.com", A), false),
        (query_edns("example.com", A, 1232, 0, 0), false),
    ] {
        assert_eq!(cache.get(&forwarded(&other).key(), SECOND).is_some(), same, "{other:?}");
    }
}

#[test]
fn what_is_kept_is_bounded_and_the_soonest_to_end_goes_first() {
    let mut cache = Cache::default();
    let host = |number: u32| format!("h{number}.example.com");
    let keep = |cache: &mut Cache, number: u32, ttl: u32, records: u8| {
        let asked = forwarded(&query(&host(number), A));
        cache.put(asked.key(), answer(&asked, &host(number), ttl, records), SECOND);
    };
    let has = |cache: &Cache, number: u32| cache.get(&forwarded(&query(&host(number), A)).key(), SECOND).is_some();
    keep(&mut cache, 1, 20, 1);
    keep(&mut cache, 2, 10, 1);
    for number in 3..=513 {
        keep(&mut cache, number, 30, 1);
    }
    assert!(has(&cache, 1) && !has(&cache, 2) && has(&cache, 513));
    // 4 KiB each: the octets are bounded too.
    for number in 1000..1200 {
        keep(&mut cache, number, 300, 255);
    }
    let large = (1000..1200).filter(|number| has(&cache, *number)).count();
    assert!((100..=128).contains(&large), "{large}");
}
