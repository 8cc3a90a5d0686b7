//! A component's origin: pinned digests, and signatures (Ed25519, in the format of minisign) beside it. Both are looked
//! at before anything else looks into the bytes.

use std::path::{Path, PathBuf};

use minisign_verify::{PublicKey, Signature};
use sha2::{Digest, Sha256};

use crate::error::Error;
use tidemill_core::units::hex;

/// A signature, and a key, have a few hundred bytes.
const FILE_BYTES_MAX: u64 = 4096;

/// The keys that the operator trusts.
#[derive(Default)]
pub struct Trust {
    keys: Vec<(PathBuf, PublicKey)>,
    required: bool,
}

/// What is known of a component by its bytes alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Its SHA-256, 64 hex digits.
    pub sha256: String,
    /// The file of the key that it is signed with.
    pub signed_by: Option<PathBuf>,
}

impl Trust {
    /// Reads the keys, each by its path and by the name that people gave it.
    pub fn open(keys: &[(PathBuf, PathBuf)], required: bool) -> Result<Self, Error> {
        let read = |(path, name): &(PathBuf, PathBuf)| {
            let text = small_file(path).map_err(|error| error.to_string());
            let key = text.and_then(|text| {
                PublicKey::decode(&text)
                    .or_else(|_| PublicKey::from_base64(text.trim()))
                    .map_err(|error| error.to_string())
            });
            key.map(|key| (name.clone(), key)).map_err(|what| Error::Key { path: path.clone(), what })
        };
        Ok(Self { keys: keys.iter().map(read).collect::<Result<_, _>>()?, required })
    }

    /// Holds a component against its pin (`sha256:...`) and against the signature beside it.
    pub fn check(&self, path: &Path, wasm: &[u8], pin: Option<&str>, handler: &str) -> Result<Origin, Error> {
        let refused = |what: String, hint: String| Error::NotTrusted { handler: handler.to_owned(), what, hint };
        let sha256 = hex(&Sha256::digest(wasm));
        let found = format!("sha256:{sha256}");
        if let Some(pin) = pin.filter(|pin| *pin != found) {
            return Err(refused(
                format!("{} has the digest {found}; pinned is {pin}", path.display()),
                format!(
                    "if this is the version that you mean, write `digest = \"{found}\"` under [handlers.{handler}]"
                ),
            ));
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(".minisig");
        let beside = PathBuf::from(beside);
        let signed_by = match small_file(&beside) {
            _ if self.keys.is_empty() && !self.required => None,
            Ok(text) => Some(self.signer(&text, wasm).map_err(|what| {
                refused(
                    format!("the signature {}: {what}", beside.display()),
                    "sign this very file with one of the keys (minisign -S), or list its key under [plugins] keys"
                        .to_owned(),
                )
            })?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !self.required => None,
            Err(error) => {
                return Err(refused(
                    format!("it needs a signature, and {} cannot be read: {error}", beside.display()),
                    "sign it with one of the keys of [plugins]: minisign -S -m FILE.wasm".to_owned(),
                ));
            }
        };
        Ok(Origin { sha256, signed_by })
    }

    fn signer(&self, text: &str, wasm: &[u8]) -> Result<PathBuf, String> {
        let signature = Signature::decode(text).map_err(|error| format!("it cannot be read: {error}"))?;
        let by = |(_, key): &&(PathBuf, PublicKey)| key.verify(wasm, &signature, false).is_ok();
        self.keys.iter().find(by).map(|(name, _)| name.clone()).ok_or_else(|| {
            let names: Vec<_> = self.keys.iter().map(|(name, _)| name.display().to_string()).collect();
            format!("none of the keys has made it for these bytes ({})", names.join(", "))
        })
    }
}

fn small_file(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    // One byte more, to see that it is too long: a part of it is no signature.
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reaches `trust::FILE_BYTES_MAX`.
    #[test]
    fn a_file_that_is_too_long_is_no_key() {
        let path = std::env::temp_dir().join(format!("tidemill-key-{}", uuid::Uuid::new_v4().simple()));
        let read = |bytes: u64| {
            std::fs::write(&path, "x".repeat(bytes as usize)).unwrap();
            small_file(&path).map(|text| text.len() as u64).map_err(|error| error.to_string())
        };
        assert_eq!(read(FILE_BYTES_MAX), Ok(FILE_BYTES_MAX));
        assert_eq!(read(FILE_BYTES_MAX + 1), Err("it has more than 4096 bytes".to_owned()));
        std::fs::remove_file(&path).unwrap();
    }
}
