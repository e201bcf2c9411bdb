//! Queries that no resolver sends: dropped, refused, or answered with an error, and never anything else.

use domain::base::header::Header;
use hms_dns::{Answer, Code, Terms, Transport, answer};
use proptest::prelude::*;

use crate::message::{
    A, ID, UDP, asked, counts, directory, header, name, query, query_edns, question, record, replied,
};

fn error(message: &[u8]) -> Code {
    let reply = replied(message);
    assert_eq!(reply.bytes[..2], message[..2], "the id of the query");
    assert!(Header::for_message_slice(&reply.bytes).qr());
    assert_eq!(counts(&reply.bytes)[0], 0);
    reply.code
}

fn with_name(bytes: &[u8]) -> Vec<u8> {
    [&header(ID, 0x0100, [1, 0, 0, 0]), bytes, &[0, 1, 0, 1]].concat()
}

#[test]
fn a_message_that_is_no_query_is_dropped() {
    for length in 0..12 {
        assert_eq!(asked(&query("payment-svc", A)[..length]), Answer::Drop);
    }
    let mut answered = query("payment-svc", A);
    answered[2] |= 0x80;
    assert_eq!(asked(&answered), Answer::Drop, "an answer to an answer would never end");
}

#[test]
fn a_query_that_ends_anywhere_is_malformed() {
    for whole in [query("payment-svc.mesh", A), query_edns("example.com", A, 1232, 0, 0)] {
        for length in 12..whole.len() {
            assert_eq!(error(&whole[..length]), Code::FormErr, "{length}");
        }
        assert_eq!(error(&[&whole[..], &[0]].concat()), Code::FormErr, "an octet too many");
    }
}

#[test]
fn names_that_lead_nowhere_or_too_far_are_malformed() {
    let label = |length: usize| [&[u8::try_from(length).unwrap()][..], &vec![b'a'; length]].concat();
    for bad in [
        vec![0xc0, 12],                                          // itself
        vec![0xc0, 14, 0xc0, 12],                                // each other
        vec![0xc0, 40],                                          // forwards
        vec![0xc0, 0],                                           // the header
        vec![1, b'a', 0xc0, 12],                                 // a loop with a label in it
        vec![0xff, 0xff],                                        // beyond the end
        [label(63), vec![64], vec![b'a'; 64], vec![0]].concat(), // a label of 64
        vec![0x80, b'a', 0],                                     // no kind of label
        vec![0x41, b'a', 0],                                     // the one that was withdrawn
        [vec![label(63); 4].concat(), vec![0]].concat(),         // a name of 257
    ] {
        assert_eq!(error(&with_name(&bad)), Code::FormErr, "{bad:?}");
    }
    let longest = [label(63), label(63), label(63), label(61), vec![0]].concat();
    assert_eq!(longest.len(), 255);
    assert!(matches!(asked(&with_name(&longest)), Answer::Forward(_)));
    let one_more = [label(63), label(63), label(63), label(62), vec![0]].concat();
    assert_eq!(error(&with_name(&one_more)), Code::FormErr);
}

#[test]
fn a_query_has_one_question_and_no_answers() {
    for counts in
        [[0, 0, 0, 0], [2, 0, 0, 0], [65535, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1], [1, 0, 0, 65535]]
    {
        let message = [header(ID, 0x0100, counts), question("payment-svc", A)].concat();
        assert_eq!(error(&message), Code::FormErr, "{counts:?}");
    }
    let twice = [header(ID, 0x0100, [2, 0, 0, 0]), question("payment-svc", A), question("payment-svc", A)].concat();
    assert_eq!(error(&twice), Code::FormErr);
    let no_question = replied(&[header(ID, 0x0100, [0; 4])].concat());
    assert_eq!(no_question.bytes, header(ID, 0x8181, [0; 4]));
}

#[test]
fn what_is_not_offered_is_refused() {
    for kind in [255, 252, 251, 253, 254, 250, 249, 41, 0] {
        assert_eq!(error(&query("payment-svc.mesh", kind)), Code::Refused, "{kind}");
        assert_eq!(error(&query("example.com", kind)), Code::Refused, "{kind}");
    }
    for class in [3, 4, 254, 255, 0] {
        let mut message = query("version.bind", 16);
        let end = message.len();
        message[end - 1] = class;
        assert_eq!(error(&message), Code::Refused, "class {class}");
        assert_eq!(replied(&message).bytes[12..], message[12..], "the question is repeated, its class too");
    }
    for opcode in 1..16_u16 {
        let message = [header(ID, opcode << 11 | 0x0100, [1, 0, 0, 0]), question("payment-svc", A)].concat();
        assert_eq!(error(&message), Code::NotImp, "{opcode}");
    }
}

#[test]
fn odd_edns_is_an_error_with_its_own_code() {
    let two = [
        header(ID, 0x0100, [1, 0, 0, 2]),
        question("payment-svc", A),
        record(&[0], 41, 0, &[]),
        record(&[0], 41, 0, &[]),
    ];
    let named = [header(ID, 0x0100, [1, 0, 0, 1]), question("payment-svc", A), record(&name("a"), 41, 0, &[])];
    let broken = [header(ID, 0x0100, [1, 0, 0, 1]), question("payment-svc", A), record(&[0], 41, 0, &[0, 8, 0, 9, 1])];
    let signed = [header(ID, 0x0100, [1, 0, 0, 1]), question("payment-svc", A), record(&name("key"), 250, 0, &[0; 16])];
    for odd in [two.concat(), named.concat(), broken.concat(), signed.concat()] {
        assert_eq!(error(&odd), Code::FormErr);
    }
    let later = replied(&query_edns("payment-svc", A, 1232, 1, 0));
    assert_eq!(later.code, Code::BadVers);
    assert_eq!(later.bytes[later.bytes.len() - 6], 1, "the upper part of 16");
    let cookie =
        [header(ID, 0x0100, [1, 0, 0, 1]), question("payment-svc", A), record(&[0], 41, 0, &[0, 10, 0, 2, 1, 1])];
    assert_eq!(replied(&cookie.concat()).code, Code::NoError);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    /// Whatever comes, the answer is a message that can be read, has the id that was sent, and fits.
    #[test]
    fn any_octets_have_an_answer_that_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..600), tcp in any::<bool>()) {
        check(&bytes, tcp);
    }

    /// The same for what is nearly a query.
    #[test]
    fn a_changed_query_has_an_answer_that_can_be_read(
        edns in any::<bool>(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = if edns { query_edns("payment-svc.mesh", A, 900, 0, 0) } else { query("payment-svc.mesh", A) };
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        check(&bytes, false);
    }
}

fn check(bytes: &[u8], tcp: bool) {
    let entries = directory();
    let transport = if tcp { Transport::Tcp } else { Transport::Udp };
    match answer(bytes, &entries, &Terms { transport, ..UDP }) {
        Answer::Drop => assert!(bytes.len() < 12 || bytes[2] & 0x80 != 0),
        Answer::Reply(reply) => {
            assert_eq!(reply.bytes[..2], bytes[..2]);
            let [..] = counts(&reply.bytes);
            assert!(tcp || reply.bytes.len() <= 1232);
        }
        Answer::Forward(query) => {
            let again = query.to_resolver(7, true);
            assert!(again.len() <= bytes.len() && again[..2] == [0, 7]);
        }
        Answer::NotYet(query) => panic!("{query:?}"),
    }
}
