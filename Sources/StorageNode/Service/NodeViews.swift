import NIOCore
import Synchronization

/// The current ``NodeView`` of a node, and the event loops that go by it.
///
/// All methods are safe from any thread.
final class NodeViews: Sendable {
    private struct Subscriber: Sendable {
        let eventLoop: any EventLoop
        let use: @Sendable (NodeView) -> Void
    }

    private struct State {
        var current: NodeView
        var subscribers: [Subscriber] = []
    }

    private let state: Mutex<State>

    init(_ first: NodeView) {
        state = Mutex(State(current: first))
        first.tellWhoseAcknowledgementsCount()
    }

    var current: NodeView { state.withLock { $0.current } }

    /// Has `use` called on `eventLoop` with every view from now on, in their order.
    /// - Returns: the view to begin with.
    func subscribe(on eventLoop: any EventLoop, _ use: @escaping @Sendable (NodeView) -> Void) -> NodeView {
        state.withLock { state in
            state.subscribers.append(Subscriber(eventLoop: eventLoop, use: use))
            return state.current
        }
    }

    /// Makes `view` the current one; returns when every event loop goes by it.
    ///
    /// One call at a time. An event loop that has stopped counts as one that goes by it.
    func publish(_ view: NodeView) async {
        view.tellWhoseAcknowledgementsCount()
        let subscribers = state.withLock { state in
            precondition(view.generation > state.current.generation, "views are published in their order")
            state.current = view
            return state.subscribers
        }
        let handed = subscribers.map { subscriber in
            subscriber.eventLoop.submit { subscriber.use(view) }
        }
        for future in handed { _ = try? await future.get() }  // Fails only where the event loop has stopped.
    }

    /// Lets go of the event loops.
    func close() { state.withLock { $0.subscribers.removeAll() } }
}
