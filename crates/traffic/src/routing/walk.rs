//! The way of a path through the tree.

use super::{Entry, Node, RouteTable};

/// Every list of rules whose pattern takes a path, the most particular first. Allocates only where patterns compete.
pub(super) struct Walk<'t, 'p> {
    table: &'t RouteTable,
    now: Option<Step<'t, 'p>>,
    /// What is left to try, the best last.
    later: Vec<Step<'t, 'p>>,
}

#[derive(Clone, Copy)]
enum Step<'t, 'p> {
    /// At a node, with this much of the path left.
    At(&'t Node, &'p str),
    /// At the end, where any rest is taken.
    Rest(&'t [Entry]),
}

impl<'t, 'p> Walk<'t, 'p> {
    pub(super) fn new(table: &'t RouteTable, path: &'p str) -> Self {
        // `*` alone names no path, and must not be mistaken for a segment.
        let root = table.nodes.first().filter(|_| path.starts_with('/'));
        Self { table, now: root.map(|node| Step::At(node, path)), later: Vec::new() }
    }

    /// Goes on with the most particular of the ways that lead on from a node, and remembers the others.
    fn fork(&mut self, node: &'t Node, segment: &str, tail: &'p str) {
        let step = |at: usize| self.table.nodes.get(at).map(|child| Step::At(child, tail));
        let literal = node.literals.get(segment).copied().and_then(step);
        let parameter = node.parameter.and_then(step);
        let rest = Some(Step::Rest(&node.rest)).filter(|_| !node.rest.is_empty());
        let mut ways = [literal, parameter, rest].into_iter().flatten();
        self.now = ways.next();
        self.later.extend(ways.rev());
    }
}

impl<'t> Iterator for Walk<'t, '_> {
    type Item = &'t [Entry];

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.now.take().or_else(|| self.later.pop())? {
                Step::Rest(entries) => return Some(entries),
                Step::At(node, rest) => match next_segment(rest) {
                    Some((segment, tail)) => self.fork(node, segment, tail),
                    None if node.here.is_empty() => {}
                    None => return Some(&node.here),
                },
            }
        }
    }
}

/// The first segment of a path and what follows it; `None` at its end. A slash at the end is no segment.
pub(super) fn next_segment(path: &str) -> Option<(&str, &str)> {
    let path = path.trim_start_matches('/');
    let end = path.find('/').unwrap_or(path.len());
    path.split_at_checked(end).filter(|(segment, _)| !segment.is_empty())
}
