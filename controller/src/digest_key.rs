//! The key by which values of Secrets enter hashes that everybody may read, such as a status' revision.
//!
//! Without one, whoever reads the hash could try short values until one fits. It is a random value in a Secret of its own in the operator's
//! namespace, made once. Where that Secret is lost another is made, and setups that are given values of Secrets count as changed.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, Client, api::PostParams};
use phoenix_crds::conditions::{ConditionType as C, Reason};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use crate::{fault::Fault, secrets};

/// The Secret's name.
pub(crate) const SECRET: &str = "phoenix-digest-key";
const FIELD: &str = "key";
const BYTES: usize = 32;

/// The key, read when it is needed first.
#[derive(Debug, Default)]
pub struct DigestKey(OnceCell<Key>);

/// A key at hand.
#[derive(Debug, Clone)]
pub(crate) struct Key(SecretSlice<u8>);

impl DigestKey {
    /// The key, made where there is none.
    pub(crate) async fn get(&self, kube: &Client, namespace: &str) -> Result<&Key, Fault> {
        self.0
            .get_or_try_init(|| read_or_make(kube, namespace))
            .await
    }
}

impl Key {
    /// A digest that says nothing of the value to whoever hasn't the key.
    pub(crate) fn digest(&self, value: &str) -> String {
        let keyed = |data: &[u8]| {
            Sha256::new()
                .chain_update(self.0.expose_secret())
                .chain_update(data)
                .finalize()
        };
        hex::encode(keyed(&keyed(value.as_bytes())))
    }
}

async fn read_or_make(kube: &Client, namespace: &str) -> Result<Key, Fault> {
    let api: Api<Secret> = Api::namespaced(kube.clone(), namespace);
    let read = || secrets::read(kube, namespace, SECRET);
    if let Some(found) = read().await? {
        return key(&found, namespace);
    }
    let bytes: [u8; BYTES] = rand::random();
    let mut made = Secret {
        data: Some(BTreeMap::from([(
            FIELD.to_owned(),
            ByteString(bytes.to_vec()),
        )])),
        ..Secret::default()
    };
    made.metadata.name = Some(SECRET.to_owned());
    match api.create(&PostParams::default(), &made).await {
        Ok(_) => key(&made, namespace),
        // another operator was faster: its key is ours, too
        Err(kube::Error::Api(status)) if status.is_already_exists() => match read().await? {
            Some(found) => key(&found, namespace),
            None => Err(unusable(namespace)),
        },
        Err(e) => Err(Fault::kube(
            &e,
            &format!("making Secret {namespace}/{SECRET}"),
        )),
    }
}

fn key(secret: &Secret, namespace: &str) -> Result<Key, Fault> {
    let bytes = secret.data.as_ref().and_then(|data| data.get(FIELD));
    match bytes {
        Some(bytes) if bytes.0.len() >= BYTES => Ok(Key(bytes.0.clone().into())),
        _ => Err(unusable(namespace)),
    }
}

fn unusable(namespace: &str) -> Fault {
    let message = format!(
        "Secret {namespace}/{SECRET} does not hold {BYTES} bytes under {FIELD:?}; delete it, and the operator makes a new one."
    );
    Fault::retry(C::SetupComplete, Reason::Waiting, message)
}

/// A key for tests.
#[cfg(test)]
pub(crate) fn tests_key(byte: u8) -> Key {
    Key(vec![byte; BYTES].into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_depends_on_key_and_value() {
        let (one, two) = (tests_key(1), tests_key(2));
        assert_eq!(one.digest("s3cret"), one.clone().digest("s3cret"));
        assert_ne!(one.digest("s3cret"), two.digest("s3cret"));
        assert_ne!(one.digest("s3cret"), one.digest("s3cres"));
        assert!(!format!("{one:?}").contains("1, 1"), "{one:?}");
    }

    #[test]
    fn a_key_that_is_too_short_is_refused_with_the_remedy() {
        let mut secret = Secret::default();
        assert!(key(&secret, "phoenix-system").is_err());
        secret.data = Some(BTreeMap::from([(FIELD.to_owned(), ByteString(vec![1]))]));
        let fault = key(&secret, "phoenix-system").unwrap_err();
        assert!(fault.message.contains("delete it"), "{}", fault.message);
    }
}
