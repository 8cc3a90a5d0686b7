//! Seeing that files have changed: the system notifies at once where it can, and every two seconds the host polls
//! anyway, because network folders and swapped symlinks notify of nothing.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tidemill_core::units::hex;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use crate::shutdown::Shutdown;

/// How often to poll without a notification.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A change is looked at when none has followed it for this long: a copy is written in pieces.
const QUIET_FOR: Duration = Duration::from_millis(150);
/// But not later than this after the first one.
const QUIET_MAX: Duration = Duration::from_secs(2);
/// A file that is younger than this may change again without a trace in its times.
const SETTLED_AFTER: Duration = Duration::from_secs(3);
/// Files below a schema folder that are looked at.
const FILES_MAX: usize = 10_000;

/// What tells at a glance that a file is another one. Symlinks are followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    place: (u64, u64),
    bytes: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(file: &Path) -> Option<Self> {
        let found = std::fs::metadata(file).ok()?;
        Some(Self {
            place: (found.dev(), found.ino()),
            bytes: found.size(),
            written: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }

    /// Whether another write would show in it by now. A system's clock for files is coarse.
    pub(crate) fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let changed = Duration::from_secs(self.changed.0.max(0).unsigned_abs());
        now.saturating_sub(changed) > SETTLED_AFTER
    }
}

/// The first 12 hex digits of a file's SHA-256, as a plugin's digest is written.
pub(crate) fn digest_of(file: &Path) -> Option<String> {
    std::fs::read(file).ok().map(|bytes| hex(&Sha256::digest(bytes))[..12].to_owned())
}

/// One digest of a file, or of all JSON files below a folder with their names.
pub(crate) fn digest_of_all(path: &Path) -> Option<String> {
    if !path.is_dir() {
        return digest_of(path);
    }
    let (mut all, mut files) = (Sha256::new(), Vec::new());
    gather(path, &mut files);
    files.sort();
    for file in files {
        all.update(file.as_os_str().as_encoded_bytes());
        all.update([0]);
        all.update(digest_of(&file).unwrap_or_default());
    }
    Some(hex(&all.finalize()))
}

fn gather(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            // Links to folders are not followed: they may lead in circles.
            Ok(kind) if kind.is_dir() => gather(&path, files),
            Ok(_) if path.extension().is_some_and(|extension| extension == "json") && files.len() < FILES_MAX => {
                files.push(path);
            }
            _ => {}
        }
    }
}

/// The names of the watched files, without their folders.
type Names = Arc<Mutex<Vec<OsString>>>;

/// Watches folders for changes.
pub(crate) struct FileWatcher {
    changed: Arc<Notify>,
    names: Names,
    watcher: Option<RecommendedWatcher>,
    folders: Vec<PathBuf>,
}

impl FileWatcher {
    pub(crate) fn listening() -> Self {
        let (heard, names) = (Arc::new(Notify::new()), Arc::new(Mutex::new(Vec::new())));
        let (ring, known) = (heard.clone(), names.clone());
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error may have swallowed a change.
            if event.map_or(true, |event| concerns(&event, &known)) {
                ring.notify_one();
            }
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "no change notifications from the system; files are polled every {LOOK_EVERY:?}");
        }
        Self { changed: heard, names, watcher: watcher.ok(), folders: Vec::new() }
    }

    /// Listens in the folders of these files, and no longer in others.
    pub(super) fn listen<'a>(&mut self, files: impl Iterator<Item = &'a Path>) {
        let Some(watcher) = &mut self.watcher else { return };
        let mut folders: Vec<PathBuf> = Vec::new();
        let mut names = Vec::new();
        for file in files {
            names.extend(file.file_name().map(OsString::from));
            let folder = if file.is_dir() { file } else { file.parent().unwrap_or(Path::new(".")) };
            if !folders.iter().any(|known| known == folder) {
                folders.push(folder.to_owned());
            }
        }
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = names;
        for gone in self.folders.iter().filter(|known| !folders.contains(known)) {
            let _ = watcher.unwatch(gone); // it may have been removed
        }
        for folder in folders.iter().filter(|folder| !self.folders.contains(folder)) {
            if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                tracing::debug!(folder = %folder.display(), %error, "no change notifications from there");
            }
        }
        self.folders = folders;
    }

    /// Waits for a change that has come to rest, or until it is time to look anyway. True: time to stop.
    pub(super) async fn wait(&self, shutdown: &mut Shutdown) -> bool {
        tokio::select! {
            stop = shutdown.sleep(LOOK_EVERY) => return stop,
            () = self.changed.notified() => {}
        }
        let latest = tokio::time::Instant::now() + QUIET_MAX;
        while tokio::time::Instant::now() < latest {
            tokio::select! {
                stop = shutdown.sleep(QUIET_FOR) => return stop,
                () = self.changed.notified() => {}
            }
        }
        shutdown.is_set()
    }
}

/// Whether a notification is about what is watched. In a folder with logs in it there is always something.
fn concerns(event: &notify::Event, names: &Names) -> bool {
    // Reading is no change.
    if matches!(event.kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write)) {
        return false;
    }
    let names = names.lock().unwrap_or_else(PoisonError::into_inner);
    let ours = |path: &PathBuf| {
        path.file_name().is_some_and(|name| names.iter().any(|known| known == name))
            || path.extension().is_some_and(|extension| extension == "json")
            || path.is_symlink()
    };
    event.paths.is_empty() || event.paths.iter().any(ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of a name of its own, which goes with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("tidemill-watch-{}", uuid::Uuid::new_v4().simple()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// As Kubernetes replaces a ConfigMap: the file is a link into a folder that is a link, and only that one changes.
    #[test]
    fn a_swapped_link_is_seen() {
        let folder = Folder::new();
        let path = |name: &str| folder.0.join(name);
        for (version, text) in [("one", "abc"), ("two", "xyz")] {
            std::fs::create_dir(path(version)).unwrap();
            std::fs::write(path(version).join("plugin.wasm"), text).unwrap();
        }
        std::os::unix::fs::symlink("one", path("data")).unwrap();
        std::os::unix::fs::symlink("data/plugin.wasm", path("plugin.wasm")).unwrap();
        let (stamp, digest) = (Stamp::of(&path("plugin.wasm")), digest_of(&path("plugin.wasm")));
        assert_eq!(Stamp::of(&path("plugin.wasm")), stamp);
        std::os::unix::fs::symlink("two", path("data.new")).unwrap();
        std::fs::rename(path("data.new"), path("data")).unwrap();
        assert_ne!(Stamp::of(&path("plugin.wasm")), stamp, "the same size, perhaps the same time, another file");
        assert_ne!(digest_of(&path("plugin.wasm")), digest);
    }

    /// Reaches `FILES_MAX`.
    #[test]
    fn so_many_files_of_a_folder_are_looked_at() {
        let folder = Folder::new();
        let found = || {
            let mut files = Vec::new();
            gather(&folder.0, &mut files);
            files.len()
        };
        (0..FILES_MAX).for_each(|n| drop(std::fs::File::create(folder.0.join(format!("{n}.json"))).unwrap()));
        assert_eq!(found(), FILES_MAX);
        std::fs::write(folder.0.join("one-more.json"), "").unwrap();
        assert_eq!(found(), FILES_MAX);
    }

    /// Reaches `QUIET_MAX`.
    #[tokio::test]
    async fn a_folder_that_never_comes_to_rest_is_looked_at_all_the_same() {
        let (ears, (_trigger, mut shutdown)) = (FileWatcher::listening(), crate::shutdown::ShutdownTrigger::new());
        let heard = ears.changed.clone();
        // Writes go on all the time.
        let writes = tokio::spawn(async move {
            loop {
                heard.notify_one();
                tokio::time::sleep(QUIET_FOR / 10).await;
            }
        });
        let waited = tokio::time::timeout(Duration::from_secs(60), ears.wait(&mut shutdown)).await;
        writes.abort();
        assert_eq!(waited, Ok(false), "it is time to look");
    }

    #[test]
    fn a_folder_is_another_one_with_each_file_that_comes_changes_or_goes() {
        let folder = Folder::new();
        let schema = |name: &str| folder.0.join(name);
        let mut seen = vec![digest_of_all(&folder.0)];
        let mut look = || {
            let digest = digest_of_all(&folder.0);
            let known = seen.contains(&digest);
            seen.push(digest);
            known
        };
        std::fs::write(schema("a.json"), "{}").unwrap();
        assert!(!look(), "one came");
        std::fs::create_dir(schema("more")).unwrap();
        std::fs::write(schema("more/b.json"), "{}").unwrap();
        assert!(!look(), "one came further down");
        std::fs::write(schema("a.json"), "[]").unwrap();
        assert!(!look(), "one changed");
        std::fs::write(schema("notes.txt"), "no schema").unwrap();
        assert!(look(), "nothing that is read");
        std::fs::rename(schema("a.json"), schema("c.json")).unwrap();
        assert!(!look(), "one has another name");
    }
}
