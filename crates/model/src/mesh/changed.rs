//! What differs between two sorted maps, found in one walk.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A key with what it had and what it has; `None` where it was not, or is not, there.
pub type Changed<'a, K, V> = (&'a K, Option<&'a V>, Option<&'a V>);

/// Every key whose value is not the same in both maps, in order. A value has the same key wherever it is, so what both maps share is
/// passed over without a look behind the pointer: that look is what the walk would spend its time on.
pub fn changed<'a, K: Ord, V: PartialEq>(
    before: &'a BTreeMap<K, Arc<V>>,
    after: &'a BTreeMap<K, Arc<V>>,
) -> Vec<Changed<'a, K, Arc<V>>> {
    let mut found = Vec::new();
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (Some((_, one)), Some((_, other))) if Arc::ptr_eq(one, other) => {
                old.next();
                new.next();
                continue;
            }
            (None, None) => return found,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((one, _)), Some((other, _))) => one.cmp(other),
        };
        let was = if order.is_le() { old.next() } else { None };
        let is = if order.is_ge() { new.next() } else { None };
        match (was, is) {
            (Some((_, was)), Some((key, is))) if was != is => found.push((key, Some(was), Some(is))),
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
        let map = |pairs: &[(u8, char)]| -> BTreeMap<u8, Arc<char>> {
            pairs.iter().map(|(key, value)| (*key, Arc::new(*value))).collect()
        };
        let (before, after) = (map(&[(1, 'a'), (2, 'b'), (4, 'd')]), map(&[(0, 'z'), (1, 'a'), (2, 'x'), (5, 'e')]));
        let found = changed(&before, &after).into_iter();
        let found: Vec<_> = found.map(|(key, was, is)| (*key, was.map(|was| **was), is.map(|is| **is))).collect();
        let expected = [(0, None, Some('z')), (2, Some('b'), Some('x')), (4, Some('d'), None), (5, None, Some('e'))];
        assert_eq!(found, expected);
        assert!(changed(&before, &before.clone()).is_empty());
        let again = map(&[(1, 'a'), (2, 'b'), (4, 'd')]);
        assert!(changed(&before, &again).is_empty(), "equal values behind other pointers");
    }
}
