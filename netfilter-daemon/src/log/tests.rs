use std::{
    io::{BufRead, BufReader, PipeReader, PipeWriter, Read as _, pipe},
    time::Instant,
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::*;

/// The smallest that there is.
const PIPE: usize = 4096;

fn small_pipe() -> (BufReader<PipeReader>, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    (BufReader::new(reader), writer)
}

fn log(to: PipeWriter) -> Log {
    let mut log = Log {
        queue: Arc::default(),
        written: false,
    };
    log.write_to(to).unwrap();
    log
}

/// More than pipe and queue hold.
fn flood(log: &Log) -> usize {
    let count = (ROOM + 2 * PIPE) / 100;
    for number in 0..count {
        log.say(&format!("{number:99}"));
    }
    count
}

fn read(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line.trim().to_owned()
}

#[test]
fn what_nobody_reads_holds_nobody_up_and_is_said_to_be_lost_in_its_place() {
    let (mut reader, writer) = small_pipe();
    let log = log(writer);
    let said = flood(&log);
    log.say("too late, too");
    let counted = log.queue.lines().lost;
    assert!(lost() >= counted);
    let kept = said + 1 - usize::try_from(counted).unwrap();
    for number in 0..kept {
        assert_eq!(read(&mut reader), number.to_string());
    }
    let loss = format!("{counted} lines of the log were lost: nobody read in time");
    assert_eq!(read(&mut reader), loss);
    log.say("read again");
    assert_eq!(read(&mut reader), "read again");
}

#[test]
fn the_last_lines_are_written_before_an_end_and_in_a_panic() {
    let (mut reader, writer) = small_pipe();
    // All of them fit in, and nobody has to read meanwhile.
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(256 * 1024)).unwrap();
    fcntl(reader.get_ref(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let log = log(writer);
    let panicked = thread::spawn(move || {
        for number in 0..1000 {
            log.say(&format!("{number:99}"));
        }
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    let lines = reader.by_ref().lines().map_while(Result::ok);
    assert_eq!(lines.count(), 1000);
}

#[test]
fn an_end_waits_for_a_reader_but_not_for_ever() {
    let (_reader, writer) = small_pipe();
    let log = log(writer);
    flood(&log);
    let begun = Instant::now();
    drop(log);
    let waited = begun.elapsed();
    assert!(waited >= PATIENCE && waited < 5 * PATIENCE, "{waited:?}");
}

#[test]
fn a_pipe_that_does_not_block_gets_every_line() {
    let (mut reader, writer) = small_pipe();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let log = log(writer);
    for number in 0..1000 {
        log.say(&format!("{number:99}"));
    }
    for number in 0..1000 {
        assert_eq!(read(&mut reader), number.to_string());
    }
}
