//! What differs between two sorted maps, found in one walk.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A key with what it had and what it has; `None` where it was not, or is not, there.
pub type Changed<'a, K, V> = (&'a K, Option<&'a V>, Option<&'a V>);

/// Every key whose value is not the same in both maps, in order. The same value behind two pointers counts as changed where
/// `same` says so.
pub fn changed<'a, K: Ord, V>(
    before: &'a BTreeMap<K, V>,
    after: &'a BTreeMap<K, V>,
    same: impl Fn(&V, &V) -> bool,
) -> Vec<Changed<'a, K, V>> {
    let mut found = Vec::new();
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return found,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((one, _)), Some((other, _))) => one.cmp(other),
        };
        let was = if order.is_le() { old.next() } else { None };
        let is = if order.is_ge() { new.next() } else { None };
        match (was, is) {
            (Some((_, was)), Some((key, is))) if !same(was, is) => found.push((key, Some(was), Some(is))),
            (Some((key, was)), None) => found.push((key, Some(was), None)),
            (None, Some((key, is))) => found.push((key, None, Some(is))),
            _ => {}
        }
    }
}

/// Whether two pointers lead to the same value, or to equal ones.
pub fn same<T: PartialEq>(one: &Arc<T>, other: &Arc<T>) -> bool {
    Arc::ptr_eq(one, other) || one == other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_walk_finds_what_was_added_changed_and_removed() {
        let map = |pairs: &[(u8, char)]| pairs.iter().copied().collect::<BTreeMap<u8, char>>();
        let (before, after) = (map(&[(1, 'a'), (2, 'b'), (4, 'd')]), map(&[(0, 'z'), (1, 'a'), (2, 'x'), (5, 'e')]));
        let found = changed(&before, &after, |one, other| one == other);
        assert_eq!(
            found,
            [(&0, None, Some(&'z')), (&2, Some(&'b'), Some(&'x')), (&4, Some(&'d'), None), (&5, None, Some(&'e')),]
        );
        assert!(changed(&before, &before, |one, other| one == other).is_empty());
    }
}
