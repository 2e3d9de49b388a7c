//! The parameters of one call, in the order in which they were given.

/// Ordered form parameters. Setting a key again replaces its value and keeps its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// No parameters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a parameter. Booleans are to be given as `1` and `0`: Proxmox refuses anything else.
    #[must_use]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "numbers and texts are given alike, without a borrow at every call"
    )]
    pub fn set(mut self, key: impl Into<String>, value: impl ToString) -> Self {
        self.put(key.into(), value.to_string());
        self
    }

    /// Sets a flag, written as `1` or `0`.
    #[must_use]
    pub fn flag(self, key: impl Into<String>, value: bool) -> Self {
        self.set(key, u8::from(value))
    }

    /// Sets a parameter where there is a value.
    #[must_use]
    pub fn opt<V: ToString>(self, key: impl Into<String>, value: Option<V>) -> Self {
        match value {
            Some(value) => self.set(key, value),
            None => self,
        }
    }

    /// Adds a configuration key to those that the call deletes.
    #[must_use]
    pub fn delete(mut self, key: &str) -> Self {
        match self.0.iter_mut().find(|(k, _)| k == "delete") {
            Some((_, list)) if list.split(',').any(|k| k == key) => {}
            Some((_, list)) => {
                list.push(',');
                list.push_str(key);
            }
            None => self.0.push(("delete".to_owned(), key.to_owned())),
        }
        self
    }

    /// Makes the call fail with [`crate::ErrorKind::Modified`] where the configuration is no longer the one of this digest.
    #[must_use]
    pub fn digest(self, digest: impl Into<String>) -> Self {
        self.set("digest", digest.into())
    }

    /// The value of a parameter.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    }

    /// The parameters in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn put(&mut self, key: String, value: String) {
        match self.0.iter_mut().find(|(k, _)| *k == key) {
            Some(slot) => slot.1 = value,
            None => self.0.push((key, value)),
        }
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Params {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(iter: I) -> Self {
        let mut params = Self::new();
        for (key, value) in iter {
            params.put(key.into(), value.into());
        }
        params
    }
}

#[cfg(test)]
mod tests {
    use super::Params;

    #[test]
    fn keeps_order_and_replaces_in_place() {
        let params = Params::new()
            .set("vmid", 900)
            .opt("pool", None::<&str>)
            .opt("tags", Some("a;b"))
            .flag("onboot", true)
            .set("vmid", 901);
        assert_eq!(
            params.iter().collect::<Vec<_>>(),
            [("vmid", "901"), ("tags", "a;b"), ("onboot", "1")]
        );
    }

    #[test]
    fn deletions_gather_in_one_parameter_without_repeats() {
        let params = Params::new()
            .delete("net1")
            .delete("dev0")
            .delete("net1")
            .digest("ab");
        assert_eq!(
            params.iter().collect::<Vec<_>>(),
            [("delete", "net1,dev0"), ("digest", "ab")]
        );
    }
}
