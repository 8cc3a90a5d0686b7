//! The token of the loopback API: a file that the host makes at its start and the commands read. Whoever may read it may do
//! all that the API does.
//!
//! The file is the only place where it is kept: it is read for each request, so that a file with another token is another
//! token from that moment on.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use rand::RngExt;
use sha2::Sha256;

use tidemill_process::files;

/// A token that somebody has thought of has at least so many bytes. One that the host makes has 64.
pub(crate) const TOKEN_BYTES_MIN: usize = 16;
/// What is read of the file, and so the longest token, in bytes.
pub(crate) const TOKEN_BYTES_MAX: usize = 1024;
/// Of a token that the host makes, before it is written in hex digits.
const RANDOM_BYTES: usize = 32;

/// The value. It has no `Display`, and its `Debug` says nothing.
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Why a token cannot be used. The text says what to do, and shows nothing of the token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no token at {}\n  hint: a host with [http] makes it at its start; [http] token_file says where", .0.display())]
    Missing(PathBuf),
    #[error("the token at {} cannot be {what}: {cause}\n  hint: run this as the host's user or in the group of the file, or name another file with [http] token_file", path.display())]
    Unreachable { path: PathBuf, what: &'static str, cause: std::io::Error },
    #[error("the token at {} is not taken: {what}\n  hint: {hint}", path.display())]
    Unfit { path: PathBuf, what: String, hint: &'static str },
}

impl Token {
    /// The token that a host takes: of a file of its own user or of root. Another user may know that of any other.
    pub fn of_host(path: &Path) -> Result<Self, Error> {
        Self::from(path, |owner| [0, rustix::process::geteuid().as_raw()].contains(&owner))
    }

    /// Reads it, as a command does that its own user or its group lets do so. A file that is no plain one, or that anybody
    /// may read or write, bears no token.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::from(path, |_| true)
    }

    fn from(path: &Path, may_own: impl Fn(u32) -> bool) -> Result<Self, Error> {
        let unreachable = |cause: std::io::Error| match cause.kind() {
            ErrorKind::NotFound => Error::Missing(path.to_owned()),
            _ => Error::Unreachable { path: path.to_owned(), what: "read", cause },
        };
        let unfit = |what: String, hint| Error::Unfit { path: path.to_owned(), what, hint };
        // Opening a pipe would wait for a writer.
        let no_wait = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(no_wait).open(path).map_err(unreachable)?;
        let about = file.metadata().map_err(unreachable)?;
        if !about.is_file() {
            return Err(unfit("it is not a file".to_owned(), "name a file with [http] token_file"));
        }
        if !may_own(about.uid()) {
            let hint = "chown it to the host's user, and put another token into it";
            return Err(unfit(format!("it belongs to user {}", about.uid()), hint));
        }
        if files::is_open(&about) || about.mode() & 0o020 != 0 {
            let hint = "chmod 600 it (or 640, for a group that may use the API), and put another token into it: \
                        this one may be known; if it is deleted, the host makes one at its next start";
            return Err(unfit(format!("others may read or write it (mode {:04o})", about.mode() & 0o7777), hint));
        }
        let mut text = String::new();
        let read = File::take(file, TOKEN_BYTES_MAX as u64 + 1).read_to_string(&mut text);
        if let Err(error) = read
            && error.kind() != ErrorKind::InvalidData
        {
            return Err(unreachable(error));
        }
        let token = text.trim();
        let fits = (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len());
        if !fits || text.len() > TOKEN_BYTES_MAX || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let hint = "put 16 to 1024 visible ASCII characters into it, on one line; if it is deleted, the host makes one at its \
                        next start";
            return Err(unfit("it holds no token".to_owned(), hint));
        }
        Ok(Self(token.to_owned()))
    }

    /// Makes one at this place if there is none, readable by this user alone, and says whether what is there can be used.
    /// Answers whether it was made.
    pub fn make(path: &Path) -> Result<bool, Error> {
        let unmade = |cause| Error::Unreachable { path: path.to_owned(), what: "made", cause };
        let mut made = false;
        if !path.exists() {
            let random: [u8; RANDOM_BYTES] = rand::rng().random();
            let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
            let beside = files::write_beside(path, &[text.as_bytes(), b"\n"]).map_err(unmade)?;
            made = files::link_once(&beside, path).map_err(unmade)?;
        }
        Self::of_host(path).map(|_| made)
    }

    /// For the request of a command.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether this is it, in a time that does not depend on how much of it is right.
    pub fn is(&self, given: &[u8]) -> bool {
        // Under a random key, what is compared says nothing about what it was made of.
        let key: [u8; RANDOM_BYTES] = rand::rng().random();
        let mac = |text: &[u8]| {
            let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("an HMAC takes a key of any length");
            mac.update(text);
            mac
        };
        mac(given).verify_slice(&mac(self.0.as_bytes()).finalize().into_bytes()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn folder() -> PathBuf {
        let folder = std::env::temp_dir().join(format!("tidemill-token-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&folder).unwrap();
        folder
    }

    #[test]
    fn a_token_is_made_once_for_its_user_alone() {
        let folder = folder();
        let path = folder.join("tidemill.token");
        assert!(matches!(Token::read(&path), Err(Error::Missing(_))));
        assert!(Token::make(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        let token = Token::read(&path).unwrap();
        assert_eq!((token.expose().len(), format!("{token:?}")), (64, "Token(..)".to_owned()));
        assert!(!Token::make(&path).unwrap(), "it is there");
        assert!(Token::read(&path).unwrap().is(token.expose().as_bytes()));
        let all_but_one = &token.expose().as_bytes()[..63];
        assert!(!token.is(all_but_one) && !token.is(b"") && !token.is(&[token.expose().as_bytes(), b" "].concat()));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left beside it");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn hosts_that_start_together_make_one_token() {
        let folder = folder();
        let path = folder.join("tidemill.token");
        let made: usize = std::thread::scope(|scope| {
            let hosts: Vec<_> = (0..8).map(|_| scope.spawn(|| usize::from(Token::make(&path).unwrap()))).collect();
            hosts.into_iter().map(|host| host.join().unwrap()).sum()
        });
        assert_eq!(made, 1);
        fs::remove_dir_all(&folder).unwrap();
    }

    /// Reaches `TOKEN_BYTES_MIN` and `TOKEN_BYTES_MAX`.
    #[test]
    fn what_others_may_read_or_what_is_no_token_is_not_taken() {
        let folder = folder();
        let path = folder.join("token");
        let said = |text: &str, mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Token::read(&path).map(|token| token.expose().to_owned()).map_err(|error| error.to_string())
        };
        let good = "0123456789abcdef";
        assert_eq!(said(&format!("{good}\n"), 0o600).unwrap(), good);
        assert_eq!(said(good, 0o640).unwrap(), good, "a group may be let in");
        for mode in [0o644, 0o602, 0o660, 0o604] {
            let error = said(good, mode).unwrap_err();
            assert!(error.contains(&format!("(mode {mode:04o})")) && !error.contains(good), "{error}");
        }
        for text in ["", "short", "two words of a token", "ümläut-ümläut-ümläut", &"x".repeat(1025)] {
            assert!(said(text, 0o600).unwrap_err().contains("it holds no token"), "{text}");
        }
        // Only root can give a file away.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        if std::os::unix::fs::chown(&path, Some(12345), None).is_ok() {
            fs::write(&path, good).unwrap();
            assert!(Token::read(&path).is_ok(), "a command asks the file system alone");
            assert!(Token::of_host(&path).unwrap_err().to_string().contains("belongs to user 12345"));
        }
        assert!(Token::read(&folder).unwrap_err().to_string().contains("it is not a file"));
        assert!(Token::make(&folder.join("missing/token")).unwrap_err().to_string().contains("cannot be made"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
