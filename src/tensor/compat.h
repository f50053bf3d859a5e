#pragma once
// Differences between LibTorch 1.13 and 2.x. Only .cpp files include this header.
#include <torch/csrc/api/include/torch/version.h>
#include <torch/csrc/autograd/edge.h>
#include <torch/csrc/autograd/function.h>

#include <memory>
#include <string>
#include <utility>

// c10::Allocator: allocate() is const in 1.13; later versions ask for copy_data() too.
#if TORCH_VERSION_MAJOR < 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 3)
#define ATTUNE_ALLOCATE_CONST const
#else
#define ATTUNE_ALLOCATE_CONST
#endif
#if TORCH_VERSION_MAJOR >= 2
#define ATTUNE_ALLOCATOR_COPIES
#endif

namespace attune {

/// Version of the LibTorch this build was compiled against.
std::string libtorch_version();

/// What holds a node of the autograd graph: a shared pointer in LibTorch 1.13, an intrusive one
/// in 2.15.
using NodePointer = decltype(torch::autograd::Edge::function);

template <class T, class Pointer>
struct NodeMaker {
  template <class... Arguments>
  static Pointer make(Arguments&&... arguments) {
    return Pointer(c10::make_intrusive<T>(std::forward<Arguments>(arguments)...));
  }
};

template <class T>
struct NodeMaker<T, std::shared_ptr<torch::autograd::Node>> {
  template <class... Arguments>
  static std::shared_ptr<torch::autograd::Node> make(Arguments&&... arguments) {
    // deleteNode frees long chains without recursion; it is looked up at use, because later
    // versions lack it.
    return std::shared_ptr<torch::autograd::Node>(new T(std::forward<Arguments>(arguments)...),
                                                  [](auto* node) { deleteNode(node); });
  }
};

/// A new node T, held as this LibTorch holds its nodes.
template <class T, class... Arguments>
NodePointer make_node(Arguments&&... arguments) {
  return NodeMaker<T, NodePointer>::make(std::forward<Arguments>(arguments)...);
}

}  // namespace attune
