//! The size limit of an object: the same for every store.

use causeway_model::{Object, allocate};

use crate::stored::{self, Stored};

/// What one object may take with its claims. The server's limit for a request is 1.5 MiB.
const LARGEST: usize = 1 << 20;
/// What a claim takes beside its owner's name.
const CLAIM: usize = 48;

/// What an object has that no other may have.
#[must_use]
pub fn claims(object: &Object) -> Vec<String> {
    match object {
        Object::Service(service) => allocate::claims(service),
        Object::EndpointSlice(_) | Object::Node(_) => Vec::new(),
    }
}

/// Whether a store takes an object.
///
/// # Errors
/// It is too large, in words.
pub fn check_size(stored: &Stored) -> Result<(), String> {
    let key = stored.object.key();
    let claims = claims(&stored.object).len();
    let each = CLAIM + key.namespace.len() + key.name.len();
    let size = stored::encode(stored).len() + claims * each;
    if size <= LARGEST {
        return Ok(());
    }
    let parts = match &stored.object {
        Object::Service(_) => "ports",
        Object::EndpointSlice(_) => "endpoints",
        Object::Node(_) => "labels",
    };
    let with = if claims > 0 {
        format!(" with its {claims} cluster addresses and node ports")
    } else {
        String::new()
    };
    Err(format!(
        "it takes {} KiB in the store{with}, and {} KiB are possible: use fewer {parts} or shorter \
         annotations, or split it",
        size.div_ceil(1 << 10),
        LARGEST >> 10
    ))
}

#[cfg(test)]
mod tests;
