//! A list in a file, read when nobody writes to it.

use std::{
    fs::{self, Metadata},
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::Path,
    thread,
    time::{Duration, SystemTime},
};

use crate::policy::source::list;

/// An edition counts when it has stayed the same for so long: one that is still being
/// written may be a shorter and yet valid list. Longer than the grain of any file
/// system's clock, so that two editions never have the same mark.
const QUIET: Duration = Duration::from_secs(1);
const ATTEMPTS: usize = 5;

/// What was read, and by what a later look knows that it is still the same.
#[derive(Debug)]
pub(super) struct Edition {
    pub(super) mark: String,
    pub(super) body: String,
}

/// What differs between two editions of a file. The time of its last change of any
/// kind is among it, which nobody can set.
///
/// # Errors
/// Where there is none.
pub(super) fn mark(path: &Path) -> io::Result<String> {
    Ok(mark_of(&fs::metadata(path)?))
}

/// Blocks for as long as it takes a writer to finish, and a few seconds at most.
///
/// # Errors
/// Where it cannot be read, is no ordinary file, too large, or does not come to rest.
pub(super) fn read(path: &Path) -> io::Result<Edition> {
    for _ in 0..ATTEMPTS {
        let file = list::open(path)?;
        let metadata = file.metadata()?;
        let before = mark_of(&metadata);
        let stays = || mark(path).is_ok_and(|now| now == before);
        if !is_quiet(&metadata, SystemTime::now()) {
            thread::sleep(QUIET);
            if !stays() {
                continue;
            }
        }
        let body = list::read(file)?;
        if stays() {
            return Ok(Edition { mark: before, body });
        }
    }
    Err(io::Error::new(
        ErrorKind::ResourceBusy,
        "somebody keeps writing to it; it is read once it has stayed the same for a second",
    ))
}

/// A time in the future tells nothing.
fn is_quiet(metadata: &Metadata, now: SystemTime) -> bool {
    let (Ok(seconds), Ok(nanoseconds)) = (
        u64::try_from(metadata.ctime()),
        u32::try_from(metadata.ctime_nsec()),
    ) else {
        return false;
    };
    let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
    now.duration_since(changed)
        .is_ok_and(|since| since >= QUIET)
}

fn mark_of(metadata: &Metadata) -> String {
    format!(
        "{}:{} {} bytes {}.{:09} {}.{:09}",
        metadata.dev(),
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec()
    )
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write};

    use super::*;

    #[test]
    fn a_file_that_is_being_written_is_read_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.json");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"0").unwrap();
        let writer = thread::spawn(move || {
            for part in 1..8 {
                thread::sleep(Duration::from_millis(200));
                write!(file, "{part}").unwrap();
            }
        });
        let edition = read(&path).unwrap();
        writer.join().unwrap();
        assert_eq!(edition.body, "01234567");
        assert_eq!(edition.mark, mark(&path).unwrap());
    }

    #[test]
    fn every_way_to_replace_a_file_gives_it_another_mark() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.json");
        fs::write(&path, "a").unwrap();
        let before = read(&path).unwrap().mark;
        assert_eq!(mark(&path).unwrap(), before, "nothing happened");
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        // In its place, of the same length, with the time of the former.
        fs::write(&path, "b").unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(modified).unwrap();
        let written = mark(&path).unwrap();
        assert_ne!(written, before);
        let other = folder.path().join("other.json");
        fs::write(&other, "c").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_ne!(mark(&path).unwrap(), written);
    }
}
