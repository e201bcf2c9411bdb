use super::*;

const SETTINGS: u8 = 0x4;
const PRIORITY: u8 = 0x2;
const WINDOW_UPDATE: u8 = 0x8;

fn at(milliseconds: u64) -> Moment {
    Moment::from_micros(60_000_000 + milliseconds * 1000)
}

fn frame(kind: u8, length: u32) -> FrameHead {
    FrameHead { length, kind, flags: 0, code: None }
}

fn headers() -> FrameHead {
    FrameHead { flags: END_HEADERS, ..frame(HEADERS, 40) }
}

fn reset(code: u32) -> FrameHead {
    FrameHead { code: Some(code), ..frame(RST_STREAM, 4) }
}

/// How many of `frames`, over and over at the same moment, pass before the breach.
fn passed(meter: &mut Meter, frames: &[FrameHead]) -> Option<(usize, Breach)> {
    (0..30_000).find_map(|number| {
        let frame = &frames[number % frames.len()];
        meter.received(frame, at(0)).err().map(|breach| (number, breach))
    })
}

#[test]
fn every_kind_of_frame_without_work_ends_before_2000_of_them() {
    let kinds = [
        frame(PING, 8),
        frame(SETTINGS, 0),
        frame(PRIORITY, 5),
        frame(WINDOW_UPDATE, 4),
        frame(DATA, 0),
        frame(DATA, 1),
        frame(0x7, 8),
        frame(0x10, 5),
        frame(0xff, 0),
    ];
    for kind in kinds {
        let ended = passed(&mut Meter::new(&Limits::EDGE), &[kind]);
        assert_eq!(ended, Some((1000, Breach::IdleFrames)), "{kind:?}");
    }
}

#[test]
fn small_messages_are_cheap_and_whole_ones_free() {
    let ended = passed(&mut Meter::new(&Limits::EDGE), &[frame(DATA, 5)]);
    assert_eq!(ended, Some((8000, Breach::IdleFrames)));
    assert_eq!(passed(&mut Meter::new(&Limits::EDGE), &[frame(DATA, 64)]), None);
    assert_eq!(passed(&mut Meter::new(&Limits::EDGE), &[headers(), frame(DATA, 20), frame(PING, 8)]), None);
}

#[test]
fn a_steady_rate_below_the_limit_goes_on_for_ever() {
    let mut meter = Meter::new(&Limits::EDGE);
    for tick in 0..100_000 {
        assert_eq!(meter.received(&frame(PING, 8), at(tick * 5)), Ok(()), "{tick}");
    }
}

#[test]
fn reading_a_large_answer_is_no_attack() {
    let mut meter = Meter::new(&Limits::EDGE);
    for _ in 0..100_000 {
        assert_eq!(meter.sent(&frame(DATA, 4096), at(0)), Ok(()));
        for update in [frame(WINDOW_UPDATE, 4), frame(WINDOW_UPDATE, 4), frame(PING, 8)] {
            assert_eq!(meter.received(&update, at(0)), Ok(()));
        }
    }
}

#[test]
fn a_window_opened_byte_by_byte_is_one() {
    let mut meter = Meter::new(&Limits::EDGE);
    let ended = (0..30_000).position(|_| {
        let sent = meter.sent(&frame(DATA, 1), at(0));
        sent.and_then(|()| meter.received(&frame(WINDOW_UPDATE, 4), at(0))).is_err()
    });
    assert_eq!(ended, Some(1000));
}

#[test]
fn pings_that_answer_messages_are_free_but_cannot_be_saved_up() {
    let mut meter = Meter::new(&Limits::EDGE);
    for _ in 0..50_000 {
        assert_eq!(meter.sent(&frame(DATA, 10), at(0)), Ok(()));
        assert_eq!(meter.received(&frame(PING, 8), at(0)), Ok(()));
    }
    for _ in 0..50_000 {
        assert_eq!(meter.sent(&frame(DATA, 10), at(0)), Ok(()));
    }
    assert_eq!(passed(&mut meter, &[frame(PING, 8)]), Some((2000, Breach::IdleFrames)));
}

#[test]
fn a_rapid_reset_ends_within_200_frames() {
    let ended = passed(&mut Meter::new(&Limits::EDGE), &[headers(), reset(8)]);
    assert!(ended.is_some_and(|(frames, breach)| frames < 200 && breach == Breach::Resets), "{ended:?}");
}

#[test]
fn leaving_a_page_is_no_attack() {
    let mut meter = Meter::new(&Limits::EDGE);
    for second in 0..100 {
        for _ in 0..90 {
            assert_eq!(meter.received(&headers(), at(second * 10_000)), Ok(()));
        }
        for _ in 0..90 {
            assert_eq!(meter.received(&reset(8), at(second * 10_000)), Ok(()));
        }
    }
}

#[test]
fn a_slow_rapid_reset_is_seen_by_its_share() {
    let mut meter = Meter::new(&Limits::EDGE);
    let ended = (0..2000).find_map(|pair| {
        let now = at(pair * 20);
        meter.received(&headers(), now).and_then(|()| meter.received(&reset(8), now)).err().map(|breach| (pair, breach))
    });
    assert_eq!(ended, Some((127, Breach::Resets)), "50 a second is less than the rate, but all of them");
}

#[test]
fn cancelling_a_third_is_no_attack_at_any_length() {
    let mut meter = Meter::new(&Limits::EDGE);
    for round in 0..20_000 {
        for _ in 0..3 {
            assert_eq!(meter.received(&headers(), at(round * 15)), Ok(()));
        }
        assert_eq!(meter.received(&reset(8), at(round * 15)), Ok(()));
    }
}

#[test]
fn resets_that_they_made_us_send_count_and_our_own_do_not() {
    let mut meter = Meter::new(&Limits::EDGE);
    let ended = (0..3000).position(|_| {
        let asked = meter.received(&headers(), at(0));
        asked.and_then(|()| meter.sent(&reset(1), at(0))).is_err()
    });
    assert_eq!(ended, Some(96));
    let mut meter = Meter::new(&Limits::EDGE);
    for code in [0, 2, 8] {
        for _ in 0..5000 {
            assert_eq!(meter.sent(&reset(code), at(0)), Ok(()));
        }
    }
}

#[test]
fn more_streams_than_allowed_are_refused_without_ending_the_connection() {
    let mut meter = Meter::new(&Limits::EDGE);
    for _ in 0..300 {
        assert_eq!(meter.received(&headers(), at(0)), Ok(()));
    }
    for _ in 0..200 {
        assert_eq!(meter.sent(&reset(7), at(0)), Ok(()));
    }
    let more = (0..3000).position(|_| {
        let asked = meter.received(&headers(), at(0));
        asked.and_then(|()| meter.sent(&reset(7), at(0))).is_err()
    });
    assert!(more.is_some_and(|more| more < 900), "but not for ever: {more:?}");
}

#[test]
fn a_header_block_has_a_size_a_number_of_pieces_and_none_empty() {
    let open = frame(HEADERS, 16_384);
    let piece = |length| frame(CONTINUATION, length);
    let mut meter = Meter::new(&Limits::EDGE);
    assert_eq!(meter.received(&open, at(0)), Ok(()));
    assert_eq!(meter.received(&piece(16_384), at(0)), Ok(()), "32 KiB");
    assert_eq!(meter.received(&piece(1), at(0)), Err(Breach::HeaderBlock));
    assert_eq!(passed(&mut Meter::new(&Limits::EDGE), &[frame(HEADERS, 1), piece(0)]), Some((1, Breach::HeaderBlock)));
    let mut meter = Meter::new(&Limits::EDGE);
    assert_eq!(meter.received(&frame(HEADERS, 1), at(0)), Ok(()));
    assert_eq!(passed(&mut meter, &[piece(1024)]), Some((8, Breach::HeaderBlock)));
    let mut meter = Meter::new(&Limits::MESH);
    assert!(
        [open, piece(16_384), piece(16_384), piece(16_384)].iter().all(|f| meter.received(f, at(0)).is_ok()),
        "64 KiB"
    );
}

#[test]
fn a_header_block_has_a_deadline_from_its_first_byte() {
    let mut meter = Meter::new(&Limits::EDGE);
    assert_eq!(meter.received(&frame(HEADERS, 10), at(0)), Ok(()));
    assert_eq!(meter.block_deadline(false), Some(at(10_000)));
    assert_eq!(meter.received(&frame(CONTINUATION, 10), at(9000)), Ok(()));
    assert_eq!(meter.block_deadline(false), Some(at(10_000)), "a piece more does not move it");
    let last = FrameHead { flags: END_HEADERS, ..frame(CONTINUATION, 10) };
    assert_eq!(meter.received(&last, at(9000)), Ok(()));
    assert_eq!(meter.block_deadline(true), Some(at(10_000)), "its last frame is arriving");
    assert_eq!(meter.block_deadline(false), None);
    assert_eq!(meter.received(&headers(), at(9500)), Ok(()));
    assert_eq!(meter.block_deadline(true), Some(at(19_500)), "another block, another deadline");
}
