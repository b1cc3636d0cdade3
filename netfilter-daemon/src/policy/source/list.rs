//! Lists of service tags in files.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{FILE_MAX, text, too_large};
use crate::policy::service_tag::{self, Catalogue};

/// The list in a file beside the policy, as it is now.
///
/// # Errors
/// Where it cannot be read, or is no list.
pub fn beside(policy: &Path, written: &str) -> Result<Catalogue, service_tag::Error> {
    let path = super::beside(policy, written);
    let json = open(&path).and_then(read);
    let json = json.map_err(|source| service_tag::Error::Unreadable { path, source })?;
    Catalogue::parse(&json, written)
}

/// A pipe would be waited for, a terminal read from, and to open a device can do things.
///
/// # Errors
/// Also where it is no ordinary file.
pub fn open(path: &Path) -> io::Result<File> {
    is_ordinary(&fs::metadata(path)?)?;
    // It may have been replaced meanwhile.
    let mut options = OpenOptions::new();
    let options = options.read(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open(path)?;
    is_ordinary(&file.metadata()?)?;
    Ok(file)
}

/// # Errors
/// Also where it is far larger than any list.
pub fn read(file: File) -> io::Result<String> {
    match file.metadata()?.len() > FILE_MAX {
        true => Err(too_large()),
        false => text(file),
    }
}

fn is_ordinary(metadata: &Metadata) -> io::Result<()> {
    match metadata.is_file() {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no ordinary file, as a list must be",
        )),
    }
}

#[cfg(test)]
mod tests {
    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    fn why(path: &Path) -> String {
        beside(Path::new("policy.yaml"), path.to_str().unwrap())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn what_is_no_ordinary_file_is_not_opened_let_alone_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        for path in [&pipe, Path::new("/dev/zero"), folder.path()] {
            let told = why(path);
            assert!(told.contains("no ordinary file"), "{told}");
        }
    }

    #[test]
    fn a_list_of_two_gigabytes_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large.json");
        File::create(&path).unwrap().set_len(2 << 30).unwrap();
        assert!(why(&path).contains("more than 64 MB"));
    }
}
