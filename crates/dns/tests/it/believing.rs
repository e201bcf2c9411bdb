//! Answers of a resolver that lies, errs or was not asked (the list of bad input for a client).

use domain::base::header::Header;
use hms_dns::forward::{Forwarded, Heard};
use hms_dns::{Code, Query};
use proptest::prelude::*;

use crate::message::{
    A, AAAA, CNAME, ID, SOA, TXT, counts, forwarded, header, name, query, query_edns, question, record,
};

/// The id under which the resolver was asked.
const OURS: u16 = 0x7777;
/// The name of the question.
const ASKED: [u8; 2] = [0xc0, 12];

fn example() -> Query {
    forwarded(&query("Example.com", A))
}

/// An answer with these records in each section.
fn answered(flags: u16, sections: [&[Vec<u8>]; 3]) -> Vec<u8> {
    let count = |records: &[Vec<u8>]| u16::try_from(records.len()).unwrap();
    let [answers, authority, additional] = sections;
    let counts = [1, count(answers), count(authority), count(additional)];
    let head = [header(OURS, 0x8180 | flags, counts), question("example.com", A)].concat();
    sections.iter().flat_map(|records| records.iter()).fold(head, |message, record| [message, record.clone()].concat())
}

fn address(last: u8) -> Vec<u8> {
    record(&ASKED, A, 60, &[192, 0, 2, last])
}

fn believed(bytes: &[u8]) -> Forwarded {
    match example().hear(OURS, bytes) {
        Heard::Answer(answer) => answer,
        other => panic!("{other:?}"),
    }
}

fn failed(answers: &[Vec<u8>]) {
    assert_eq!(example().hear(OURS, &answered(0, [answers, &[], &[]])), Heard::Failed, "{answers:?}");
}

#[test]
fn a_question_for_a_resolver_is_written_anew() {
    let asked = forwarded(&query_edns("Example.com", A, 4096, 0, 0x8000));
    let bytes = asked.to_resolver(OURS, true);
    let edns = record(&[0], 41, 0x8000, &[]);
    let expected = [header(OURS, 0x0100, [1, 0, 0, 1]), question("Example.com", A)].concat();
    assert_eq!(bytes[..expected.len()], expected);
    assert_eq!(bytes[expected.len() + 3..expected.len() + 5], 1232_u16.to_be_bytes());
    assert_eq!(bytes[expected.len() + 5..], edns[5..]);
    assert_eq!(counts(&asked.to_resolver(OURS, false)), [0, 0, 0]);
}

#[test]
fn an_answer_is_passed_on_with_the_clients_id_and_letters() {
    let answer = believed(&answered(0x0400, [&[address(1), address(2)], &[], &[]]));
    assert_eq!((answer.code(), answer.seconds()), (Code::NoError, Some(60)));
    let client = forwarded(&query("eXAMPLE.cOM", A));
    let reply = answer.reply_to(&client, 25);
    assert_eq!(reply.bytes[..2], ID.to_be_bytes());
    assert_eq!(reply.bytes[12..29], [name("eXAMPLE.cOM"), vec![0, 1, 0, 1]].concat());
    assert_eq!(counts(&reply.bytes), [2, 0, 0]);
    assert_eq!(reply.bytes[35..39], 35_u32.to_be_bytes(), "the time that is left");
    assert_eq!(answer.reply_to(&client, 600).bytes[35..39], 1_u32.to_be_bytes());
}

#[test]
fn who_answers_another_question_is_ignored() {
    let right = answered(0, [&[address(1)], &[], &[]]);
    let mut other_id = right.clone();
    other_id[1] ^= 1;
    let mut a_query = right.clone();
    a_query[2] &= 0x7f;
    let mut other_opcode = right.clone();
    other_opcode[2] |= 0x20;
    let other = |asked: Vec<u8>| [header(OURS, 0x8180, [1, 0, 0, 0]), asked].concat();
    let mut other_class = question("example.com", A);
    *other_class.last_mut().unwrap() = 3;
    for wrong in [
        other_id,
        a_query,
        other_opcode,
        other(question("example.org", A)),
        other(question("example.com", AAAA)),
        other(other_class),
        other(vec![0xc0, 12, 0, 1, 0, 1]),
        header(OURS, 0x8180, [0, 0, 0, 0]),
        header(OURS, 0x8180, [2, 0, 0, 0]),
        right[..11].to_vec(),
        Vec::new(),
    ] {
        assert_eq!(example().hear(OURS, &wrong), Heard::Foreign, "{wrong:?}");
    }
}

#[test]
fn every_code_is_an_answer_or_a_failure() {
    for code in 0..16_u16 {
        let heard = example().hear(OURS, &answered(code, [&[], &[], &[]]));
        match code {
            0 => assert!(matches!(heard, Heard::Answer(answer) if answer.seconds().is_none()), "empty, kept by nobody"),
            3 => assert!(matches!(heard, Heard::Answer(answer) if answer.code() == Code::NxDomain)),
            _ => assert_eq!(heard, Heard::Failed, "{code}"),
        }
    }
    assert_eq!(example().hear(OURS, &answered(0x0200, [&[], &[], &[]])), Heard::Truncated);
    let edns = forwarded(&query_edns("example.com", A, 1232, 0, 0));
    assert_eq!(edns.hear(OURS, &answered(1, [&[], &[], &[]])), Heard::Plain);
    assert_eq!(edns.hear(OURS, &header(OURS, 0x8181, [0; 4])), Heard::Plain);
}

#[test]
fn an_answer_that_ends_anywhere_or_has_too_much_is_none() {
    let whole = answered(0, [&[address(1)], &[record(&ASKED, TXT, 1, &[1, b'x'])], &[record(&[0], 41, 0, &[])]]);
    believed(&whole);
    for length in 29..whole.len() {
        assert_eq!(example().hear(OURS, &whole[..length]), Heard::Failed, "{length}");
    }
    assert_eq!(example().hear(OURS, &[&whole[..], &[0]].concat()), Heard::Failed);
    let mut many = answered(0, [&[address(1)], &[], &[]]);
    (many[6], many[7]) = (0xff, 0xff);
    assert_eq!(example().hear(OURS, &many), Heard::Failed, "65 535 answers");
}

#[test]
fn records_that_are_malformed_or_not_asked_for_make_an_answer_worthless() {
    let cname = |owner: &[u8], target: &[u8]| record(owner, CNAME, 60, target);
    let mut other_class = address(1);
    other_class[5] = 3;
    for bad in [
        vec![record(&ASKED, A, 60, &[1, 2, 3])],
        vec![record(&ASKED, A, 60, &[0; 16])],
        vec![record(&ASKED, AAAA, 60, &[0; 4])],
        vec![record(&name("other.org"), A, 60, &[192, 0, 2, 1])],
        vec![address(1), record(&name("bank.example"), A, 60, &[192, 0, 2, 1])],
        vec![cname(&ASKED, &name("a.org")), record(&name("b.org"), A, 60, &[192, 0, 2, 1])],
        vec![cname(&ASKED, &ASKED)],
        vec![cname(&ASKED, &name("a.org")), cname(&name("a.org"), &name("example.COM"))],
        vec![cname(&ASKED, &[0xc0, 29])],
        vec![cname(&[0xc0, 29], &name("a.org"))],
        vec![other_class],
        vec![record(&ASKED, A, 60, &[240, 0, 0, 1])],
        vec![record(&ASKED, AAAA, 60, &[0xfd, 0x48, 0x4d, 0x53, 0x6d, 0x65, 0x73, 0x68, 0, 0, 0, 0, 0, 0, 0, 1])],
        vec![record(&ASKED, AAAA, 60, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 240, 0, 0, 1])],
    ] {
        failed(&bad);
    }
}

#[test]
fn aliases_are_followed_in_any_order_and_not_for_ever() {
    let hosts: Vec<Vec<u8>> = (0..101).map(|number| name(&format!("h{number}.org"))).collect();
    let chain = |length: usize| {
        let mut records = vec![record(&ASKED, CNAME, 60, &hosts[0])];
        records.extend((0..length).map(|number| record(&hosts[number], CNAME, 60, &hosts[number + 1])));
        records.push(record(&hosts[length], A, 60, &[192, 0, 2, 1]));
        records.reverse();
        records
    };
    assert_eq!(believed(&answered(0, [&chain(3), &[], &[]])).seconds(), Some(60));
    assert_eq!(believed(&answered(0, [&chain(14), &[], &[]])).seconds(), Some(60));
    failed(&chain(100));
    let above = [
        record(&name("com"), 39, 60, &name("org")),
        record(&ASKED, CNAME, 60, &name("example.org")),
        record(&name("example.org"), A, 60, &[192, 0, 2, 1]),
    ];
    assert_eq!(believed(&answered(0, [&above, &[], &[]])).seconds(), Some(60));
}

#[test]
fn times_are_believed_within_bounds() {
    let with = |ttl: u32| believed(&answered(0, [&[record(&ASKED, A, ttl, &[192, 0, 2, 1])], &[], &[]])).seconds();
    assert_eq!([0, 1, 60, 300, 301].map(with), [1, 1, 60, 300, 300].map(Some));
    assert_eq!([i32::MAX.unsigned_abs(), 1 << 31, u32::MAX].map(with), [300, 1, 1].map(Some), "RFC 2181");
    let soa = |ttl: u32, minimum: u32| {
        let numbers = [1, 2, 3, 4, minimum].into_iter().flat_map(u32::to_be_bytes).collect::<Vec<_>>();
        record(&name("com"), SOA, ttl, &[vec![0, 0], numbers].concat())
    };
    for code in [0, 3] {
        let nothing = |ttl: u32, minimum: u32| believed(&answered(code, [&[], &[soa(ttl, minimum)], &[]])).seconds();
        assert_eq!(nothing(900, 30), Some(30));
        assert_eq!(nothing(20, 30), Some(20));
        assert_eq!(nothing(90_000, 90_000), Some(300));
        assert_eq!(nothing(0, 0), Some(1));
    }
    let alias = record(&ASKED, CNAME, 20, &name("a.org"));
    assert_eq!(believed(&answered(0, [std::slice::from_ref(&alias), &[soa(900, 900)], &[]])).seconds(), Some(20));
    assert_eq!(believed(&answered(0, [&[alias], &[], &[]])).seconds(), None);
}

#[test]
fn an_answer_that_is_too_long_for_the_client_sends_it_to_tcp() {
    let many: Vec<_> = (0..60).map(address).collect();
    let answer = believed(&answered(0, [&many, &[], &[]]));
    let reply = answer.reply_to(&example(), 0);
    assert!(reply.bytes.len() <= 512 && Header::for_message_slice(&reply.bytes).tc());
    assert_eq!(counts(&reply.bytes), [0, 0, 0]);
    let edns = answer.reply_to(&forwarded(&query_edns("example.com", A, 1232, 0, 0)), 0);
    assert_eq!(counts(&edns.bytes)[0], 60);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    /// Whatever a resolver sends, what is passed on can be read and answers what was asked.
    #[test]
    fn a_changed_answer_is_worthless_or_can_be_read(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let alias = record(&ASKED, CNAME, 60, &name("a.org"));
        let mut bytes = answered(0, [&[alias, record(&name("a.org"), A, 9, &[192, 0, 2, 1])], &[], &[record(&[0], 41, 0, &[])]]);
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Heard::Answer(answer) = example().hear(OURS, &bytes) {
            let reply = answer.reply_to(&example(), 3).bytes;
            let [..] = counts(&reply);
            prop_assert_eq!(&reply[12..29], &query("Example.com", A)[12..29]);
        }
    }
}
