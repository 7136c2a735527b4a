//! Unwinding what was done (invariant I7: a failed ADD leaves nothing behind).

use crate::Error;

type Step<'a> = Box<dyn FnOnce() -> Result<(), Error> + 'a>;

/// Steps that take back what was done, run in reverse order when dropped, unless
/// [`Undo::commit`] was called.
///
/// ```
/// use causeway_kernel::Undo;
/// let mut undo = Undo::new();
/// // make the first thing, then:
/// undo.push(|| Ok(/* remove the first thing */ ()));
/// // make the second thing with `?`; if that fails, the first is removed.
/// undo.commit();
/// ```
#[derive(Default)]
pub struct Undo<'a> {
    steps: Vec<Step<'a>>,
}

impl<'a> Undo<'a> {
    /// Nothing to take back yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the step that takes back what has just been done.
    pub fn push(&mut self, step: impl FnOnce() -> Result<(), Error> + 'a) {
        self.steps.push(Box::new(step));
    }

    /// Everything succeeded: nothing is taken back.
    pub fn commit(mut self) {
        self.steps.clear();
    }

    /// Takes everything back now, last thing first. A failing step does not stop the others.
    pub fn unwind(mut self) -> Vec<Error> {
        self.run()
    }

    fn run(&mut self) -> Vec<Error> {
        let steps = std::mem::take(&mut self.steps);
        steps.into_iter().rev().filter_map(|step| step().err()).collect()
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        // Whoever wants the errors calls `unwind`.
        drop(self.run());
    }
}

impl std::fmt::Debug for Undo<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Undo").field("steps", &self.steps.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn runs_in_reverse_and_past_failures() {
        let order = RefCell::new(Vec::new());
        let mut undo = Undo::new();
        for n in 1..=3 {
            let order = &order;
            undo.push(move || {
                order.borrow_mut().push(n);
                if n == 2 { Err(Error::errno("undo 2", libc::EBUSY)) } else { Ok(()) }
            });
        }
        let errors = undo.unwind();
        assert_eq!(*order.borrow(), [3, 2, 1]);
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].raw(), Some(libc::EBUSY));
    }

    #[test]
    fn dropping_unwinds_and_committing_does_not() {
        let count = RefCell::new(0);
        let step = || {
            *count.borrow_mut() += 1;
            Ok(())
        };
        let mut undo = Undo::new();
        undo.push(step);
        drop(undo);
        assert_eq!(*count.borrow(), 1);
        let mut undo = Undo::new();
        undo.push(step);
        undo.commit();
        assert_eq!(*count.borrow(), 1);
    }
}
