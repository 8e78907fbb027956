public import Core
public import NIOCore
import NIOHTTP1
import Sharding
import Wire

extension KVClient {
    /// Sends a request to one node, and to where it redirects, and returns the successful answer.
    ///
    /// Nothing is tried again. Where the answer shows a newer topology, ``topology()`` has it afterwards. Throws
    /// `KVError`: what the node says where it refuses, `.unavailable` or `.timedOut` where it does not answer; then it may
    /// have done what was asked.
    /// - Parameters:
    ///   - node: who is asked first.
    ///   - request: with a path of the node's own, such as `/status`.
    ///   - timeout: for each node that is asked.
    public func ask(
        _ node: NodeAddress, _ request: NodeRequest, timeout: TimeAmount
    ) async throws(KVError) -> NodeResponse {
        var (request, address) = (request, node)
        for _ in 0...Limits.redirectsMax {
            let response: NodeResponse
            do {
                response = try await connections.execute(request, to: address, deadline: .now() + timeout)
            } catch {
                throw Self.kvError(error)
            }
            await noteEpoch(response.epoch, of: address)
            guard response.isRedirect else {
                guard (200..<300).contains(response.status) else { throw Answers.error(response) }
                return response
            }
            let location = response.headers.first(name: "location")
            guard let redirect = location.flatMap({ Redirect(location: $0, from: address) }) else {
                throw KVError(.invalidData, "\(address) redirects to nowhere: is it a node?")
            }
            (request.target, address) = (redirect.target, redirect.address)
        }
        throw KVError(
            .unavailable,
            "\(node) and others redirect \(request.target) in circles: they disagree about the topology, try again")
    }

    /// Has the topology fetched from a node that knows a newer one.
    private func noteEpoch(_ epoch: UInt64?, of node: NodeAddress) async {
        guard let epoch, let known = context.topology.current?.epoch, epoch > known else { return }
        do {
            // Also right after another fetch: what that found is known to be old.
            _ = try await context.topology.refresh(.current, asking: [node], epoch: epoch, on: group.any()).get()
        } catch {
            // The caller goes on with what is known.
        }
    }

    /// The document that a node answers a request with; see ``ask(_:_:timeout:)``.
    public func ask<Document: Decodable>(
        _ node: NodeAddress, _ request: NodeRequest, for type: Document.Type, timeout: TimeAmount
    ) async throws(KVError) -> Document {
        let response = try await ask(node, request, timeout: timeout)
        do {
            return try DocumentCoding.decode(type, from: response.body.readableBytesView)
        } catch {
            throw Self.kvError(error)
        }
    }
}

extension NodeRequest {
    /// A POST of a JSON document.
    public static func post(_ target: String, _ document: some Encodable) throws(KVError) -> NodeRequest {
        do {
            return NodeRequest(
                method: .POST, target: target, headers: [("content-type", MediaType.json)],
                body: ByteBuffer(bytes: try DocumentCoding.encode(document)))
        } catch {
            throw KVError(.internalError, "a document cannot be written as JSON", cause: error)
        }
    }
}
