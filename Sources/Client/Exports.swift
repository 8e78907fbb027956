// The API has types of these in its signatures (`KVError`, `Version`, `NodeAddress`, `Topology`): whoever imports the
// client can name them.
@_exported public import Core
@_exported public import Sharding
