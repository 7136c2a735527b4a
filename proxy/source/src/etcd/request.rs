//! Builders of requests.

use super::message::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, PutRequest, RangeRequest,
    RangeResponse, RequestOp, TxnRequest, TxnResponse, compare, request_op, response_op::Response,
};

/// The first key behind all that begin with `prefix`; empty, which is none, for a prefix that none
/// can be behind.
#[must_use]
pub fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            break;
        }
    }
    end
}

impl RangeRequest {
    /// One key.
    pub fn one(key: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), ..Self::default() }
    }

    /// All keys that begin with a prefix.
    pub fn prefix(prefix: impl Into<Vec<u8>>) -> Self {
        let key = prefix.into();
        Self { range_end: end_of(&key), key, ..Self::default() }
    }

    /// Without the values.
    #[must_use]
    pub fn keys_only(self) -> Self {
        Self { keys_only: true, ..self }
    }
}

impl RequestOp {
    /// Reads.
    #[must_use]
    pub fn get(range: RangeRequest) -> Self {
        Self { request: Some(request_op::Request::Range(range)) }
    }

    /// Writes a key that hangs on a lease; 0: on none.
    pub fn put(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>, lease: i64) -> Self {
        let put = PutRequest { key: key.into(), value: value.into(), lease };
        Self { request: Some(request_op::Request::Put(put)) }
    }

    /// Deletes a key.
    pub fn delete(key: impl Into<Vec<u8>>) -> Self {
        let delete = DeleteRangeRequest { key: key.into(), range_end: Vec::new() };
        Self { request: Some(request_op::Request::DeleteRange(delete)) }
    }

    /// Deletes all keys that begin with a prefix.
    pub fn delete_prefix(prefix: impl Into<Vec<u8>>) -> Self {
        let key = prefix.into();
        let delete = DeleteRangeRequest { range_end: end_of(&key), key };
        Self { request: Some(request_op::Request::DeleteRange(delete)) }
    }

    /// A transaction within the transaction.
    #[must_use]
    pub fn txn(txn: TxnRequest) -> Self {
        Self { request: Some(request_op::Request::Txn(txn)) }
    }
}

impl Compare {
    /// Of the key's creation; 0: it is absent.
    pub fn create_revision(key: impl Into<Vec<u8>>, result: CompareResult, revision: i64) -> Self {
        let target = compare::Target::CreateRevision(revision);
        Self::new(key.into(), (CompareTarget::Create, target), result)
    }

    /// Of the key's last change; 0: it is absent.
    pub fn mod_revision(key: impl Into<Vec<u8>>, result: CompareResult, revision: i64) -> Self {
        let target = compare::Target::ModRevision(revision);
        Self::new(key.into(), (CompareTarget::Mod, target), result)
    }

    /// Of what the key holds.
    pub fn value(
        key: impl Into<Vec<u8>>,
        result: CompareResult,
        value: impl Into<Vec<u8>>,
    ) -> Self {
        let target = compare::Target::Value(value.into());
        Self::new(key.into(), (CompareTarget::Value, target), result)
    }

    /// Of the lease that the key hangs on.
    pub fn lease(key: impl Into<Vec<u8>>, result: CompareResult, lease: i64) -> Self {
        let target = compare::Target::Lease(lease);
        Self::new(key.into(), (CompareTarget::Lease, target), result)
    }

    /// Of all keys from this one to `end`, which is behind them. If there are none it is as with
    /// one that is absent.
    #[must_use]
    pub fn until(self, end: impl Into<Vec<u8>>) -> Self {
        Self { range_end: end.into(), ..self }
    }

    fn new(
        key: Vec<u8>,
        (target, with): (CompareTarget, compare::Target),
        result: CompareResult,
    ) -> Self {
        Self {
            result: result.into(),
            target: target.into(),
            key,
            target_union: Some(with),
            range_end: Vec::new(),
        }
    }
}

impl TxnRequest {
    /// With nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What has to hold.
    #[must_use]
    pub fn when(mut self, compare: impl Into<Vec<Compare>>) -> Self {
        self.compare = compare.into();
        self
    }

    /// What is done if it does.
    #[must_use]
    pub fn and_then(mut self, success: impl Into<Vec<RequestOp>>) -> Self {
        self.success = success.into();
        self
    }

    /// What is done if it does not.
    #[must_use]
    pub fn or_else(mut self, failure: impl Into<Vec<RequestOp>>) -> Self {
        self.failure = failure.into();
        self
    }
}

impl TxnResponse {
    /// What was read, also by transactions within, in the order of the operations.
    pub fn ranges(&self) -> impl Iterator<Item = &RangeResponse> {
        let mut ranges = Vec::new();
        self.each(&mut |response| {
            if let Response::Range(range) = response {
                ranges.push(range);
            }
        });
        ranges.into_iter()
    }

    /// Whether anything was written or deleted.
    #[must_use]
    pub fn changed(&self) -> bool {
        let mut changed = false;
        self.each(&mut |response| {
            changed |= match response {
                Response::Put(_) => true,
                Response::DeleteRange(deleted) => deleted.deleted > 0,
                Response::Range(_) | Response::Txn(_) => false,
            };
        });
        changed
    }

    fn each<'a>(&'a self, take: &mut impl FnMut(&'a Response)) {
        for response in self.responses.iter().filter_map(|one| one.response.as_ref()) {
            if let Response::Txn(within) = response {
                within.each(take);
            } else {
                take(response);
            }
        }
    }
}
