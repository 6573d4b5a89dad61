use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};

use super::error::Error;
use super::files;
use super::paths::Layout;
use super::postmaster::is_alive;

/// The right to the data directory. The kernel takes it back when the process ends, however it
/// ends, so that a killed owner leaves nothing to clean up.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    pub(super) fn take(layout: &Layout) -> Result<Self, Error> {
        let path = layout.lock();
        // Who can read it can lock it, and keep us out.
        let mut file = files::open(&path, 0o600, OpenOptions::new().read(true).write(true))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // A missing pid makes the message poorer, not wrong.
                let _ = file.read_to_string(&mut text);
                let pid = text.trim().parse().ok().filter(|pid| is_alive(*pid));
                return Err(Error::Locked { data_dir: layout.root.clone(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(Error::io("lock", &path)(source)),
        }
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()))
            .map_err(Error::io("write", &path))?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_taker_hears_who_was_first() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let layout = Layout { root: dir.path().to_owned() };
        let first = Lock::take(&layout).expect("free");
        match Lock::take(&layout) {
            Err(Error::Locked { pid, .. }) => {
                assert_eq!(pid, i32::try_from(std::process::id()).ok());
            }
            other => panic!("expected a refusal, got {other:?}"),
        }
        drop(first);
        Lock::take(&layout).expect("free again");
    }
}
