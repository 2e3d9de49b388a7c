//! One call before it is sent: what is asked of which endpoint, on whose behalf.

use crate::{Error, ErrorKind, Params};

/// On whose behalf a call is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum As {
    /// The API token.
    Token,
    /// root@pam itself, by a login ticket.
    Root,
    /// The token's own user, by a login ticket.
    Owner,
}

/// One call, not yet sent. It has no `Debug`: a login's form holds a password.
pub(crate) struct Call {
    pub(crate) method: &'static str,
    pub(crate) template: &'static str,
    pub(crate) path: String,
    pub(crate) query: Vec<(&'static str, String)>,
    pub(crate) form: Vec<(String, String)>,
    pub(crate) by: As,
}

impl Call {
    fn new(method: &'static str, template: &'static str, path: impl Into<String>) -> Self {
        Self {
            method,
            template,
            path: path.into(),
            query: Vec::new(),
            form: Vec::new(),
            by: As::Token,
        }
    }

    pub(crate) fn get(template: &'static str, path: impl Into<String>) -> Self {
        Self::new("GET", template, path)
    }

    pub(crate) fn post(template: &'static str, path: impl Into<String>) -> Self {
        Self::new("POST", template, path)
    }

    pub(crate) fn put(template: &'static str, path: impl Into<String>) -> Self {
        Self::new("PUT", template, path)
    }

    pub(crate) fn delete(template: &'static str, path: impl Into<String>) -> Self {
        Self::new("DELETE", template, path)
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "numbers and texts are given alike, without a borrow at every call"
    )]
    pub(crate) fn query(mut self, key: &'static str, value: impl ToString) -> Self {
        self.query.push((key, value.to_string()));
        self
    }

    pub(crate) fn query_opt(self, key: &'static str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.query(key, value),
            None => self,
        }
    }

    pub(crate) fn form(mut self, params: &Params) -> Self {
        self.form = params
            .iter()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        self
    }

    pub(crate) fn by(mut self, by: As) -> Self {
        self.by = by;
        self
    }

    pub(crate) fn is_read(&self) -> bool {
        self.method == "GET"
    }

    pub(crate) fn fail(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        Error::local(kind, self.method, self.template, message)
    }
}

/// Writes a text so that it is one segment of a path, one value of a query or cookie.
pub(crate) fn escape(text: &str) -> String {
    let digit = |n: u8| char::from(b"0123456789ABCDEF"[usize::from(n)]);
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.extend(['%', digit(byte >> 4), digit(byte & 15)]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn nothing_leaves_its_segment() {
        assert_eq!(escape("pve-1.lan_~"), "pve-1.lan_~");
        assert_eq!(escape("../x?y=1&z#"), "..%2Fx%3Fy%3D1%26z%23");
        assert_eq!(escape("UPID:n:0:é!+ "), "UPID%3An%3A0%3A%C3%A9%21%2B%20");
    }
}
