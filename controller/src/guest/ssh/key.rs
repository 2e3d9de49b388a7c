//! Our key pair, as it is stored and as a container is given it.

use std::fmt;
use std::sync::Arc;

use russh::keys::{Algorithm, PrivateKey, ssh_key::LineEnding};
use secrecy::{ExposeSecret, SecretString};

/// What begins the comment of every key that an operator wrote into a container, so that it is known again there.
pub(in crate::guest) const COMMENT: &str = "phoenix-hypervisor:";

/// An Ed25519 key pair. Its private half shows nowhere.
#[derive(Clone)]
pub struct SshKey {
    private: Arc<PrivateKey>,
    line: String,
}

/// Why a text is no key pair that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SshKeyError {
    /// Not OpenSSH's format.
    #[error("it is not a private key in OpenSSH's format ({0})")]
    Unreadable(String),
    /// Another algorithm.
    #[error("it is a key of type {0}, and only ssh-ed25519 is used")]
    NotEd25519(String),
    /// It has a passphrase.
    #[error("it is encrypted with a passphrase, which the operator doesn't know")]
    Encrypted,
}

impl SshKey {
    /// A new one; `whose` tells the installation and hypervisor that it is for.
    pub fn generate(whose: &str) -> Result<Self, SshKeyError> {
        let mut random = russh::keys::key::safe_rng();
        let key = PrivateKey::random(&mut random, Algorithm::Ed25519);
        Self::from_private(
            key.map_err(|e| SshKeyError::Unreadable(e.to_string()))?,
            whose,
        )
    }

    /// Reads what [`SshKey::to_openssh`] wrote, or `ssh-keygen -t ed25519 -N ''`.
    pub fn from_openssh(text: &SecretString, whose: &str) -> Result<Self, SshKeyError> {
        let key = PrivateKey::from_openssh(text.expose_secret());
        Self::from_private(
            key.map_err(|e| SshKeyError::Unreadable(e.to_string()))?,
            whose,
        )
    }

    fn from_private(mut key: PrivateKey, whose: &str) -> Result<Self, SshKeyError> {
        if key.is_encrypted() {
            return Err(SshKeyError::Encrypted);
        }
        if key.algorithm() != Algorithm::Ed25519 {
            return Err(SshKeyError::NotEd25519(key.algorithm().to_string()));
        }
        // one word, whatever an installation is called
        let whose: String = whose
            .chars()
            .filter(|c| c.is_ascii_graphic() && *c != '\'')
            .collect();
        key.set_comment(format!("{COMMENT}{whose}"));
        let line = key.public_key().to_openssh();
        Ok(Self {
            line: line.map_err(|e| SshKeyError::Unreadable(e.to_string()))?,
            private: Arc::new(key),
        })
    }

    /// The private key in OpenSSH's format.
    pub fn to_openssh(&self) -> Result<SecretString, SshKeyError> {
        let text = self.private.to_openssh(LineEnding::LF);
        let text = text.map_err(|e| SshKeyError::Unreadable(e.to_string()))?;
        Ok(SecretString::from(text.as_str()))
    }

    /// The line for `authorized_keys`.
    pub fn authorized_line(&self) -> &str {
        &self.line
    }

    pub(super) fn private(&self) -> Arc<PrivateKey> {
        Arc::clone(&self.private)
    }
}

impl fmt::Debug for SshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SshKey").field(&self.line).finish()
    }
}

impl PartialEq for SshKey {
    fn eq(&self, other: &Self) -> bool {
        self.line == other.line
    }
}

impl Eq for SshKey {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_storage_and_shows_only_its_public_half() {
        let key = SshKey::generate("home@0b5e 6d0e").unwrap();
        let stored = key.to_openssh().unwrap();
        let again = SshKey::from_openssh(&stored, "home@0b5e6d0e").unwrap();
        assert_eq!(key, again);
        let words: Vec<&str> = key.authorized_line().split(' ').collect();
        assert_eq!(
            (words.len(), words[0], words[2]),
            (3, "ssh-ed25519", "phoenix-hypervisor:home@0b5e6d0e")
        );
        let secret = stored.expose_secret().lines().nth(2).unwrap();
        assert!(!format!("{key:?}").contains(secret));
        assert_ne!(key, SshKey::generate("home@0b5e6d0e").unwrap());
    }

    #[test]
    fn what_is_no_usable_key_is_told_apart() {
        let read = |text: &str| SshKey::from_openssh(&SecretString::from(text), "x").unwrap_err();
        assert!(matches!(read("nonsense"), SshKeyError::Unreadable(_)));
        let mut random = russh::keys::key::safe_rng();
        let ecdsa = Algorithm::Ecdsa {
            curve: russh::keys::EcdsaCurve::NistP256,
        };
        let other = PrivateKey::random(&mut random, ecdsa).unwrap();
        assert!(matches!(
            read(&other.to_openssh(LineEnding::LF).unwrap()),
            SshKeyError::NotEd25519(_)
        ));
        let locked = PrivateKey::random(&mut random, Algorithm::Ed25519).unwrap();
        let locked = locked.encrypt(&mut random, "secret").unwrap();
        assert_eq!(
            read(&locked.to_openssh(LineEnding::LF).unwrap()),
            SshKeyError::Encrypted
        );
    }
}
