//! What is kept of objects, by their uid, between passes.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// One value for each object. A lock that a panic poisoned is taken all the same: each change is complete in itself.
#[derive(Debug)]
pub(crate) struct ByUid<T>(Mutex<HashMap<String, T>>);

impl<T> Default for ByUid<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> ByUid<T> {
    /// All of them.
    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<String, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on an object's value, where there is one.
    pub(crate) fn with_known<R>(&self, uid: &str, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.lock().get_mut(uid).map(f)
    }

    /// The object is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }
}

impl<T: Default> ByUid<T> {
    /// Works on an object's value, made where there was none.
    pub(crate) fn with<R>(&self, uid: &str, f: impl FnOnce(&mut T) -> R) -> R {
        f(self.lock().entry(uid.to_owned()).or_default())
    }
}
