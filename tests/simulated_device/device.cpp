// A device of type CUDA for builds of torch without CUDA: its memory is that of the process, and a
// processor computes its operations. See device.py.
//
// Each operation that a GPU would launch arrives at `launch`, which counts it, raises where tensors
// of device and host mix, and takes it down where the current stream is being captured.

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace {

using at::Tensor;
using c10::IValue;
using torch::jit::Stack;

constexpr auto kCUDA = c10::DeviceType::CUDA;
constexpr int kMostDevices = 4;

enum Counter { LAUNCHES, RECORDED, SYNCHRONIZATIONS, UPLOADS, REPLAYS, ALLOCATED, PEAK, N_COUNTERS };
std::atomic<int64_t> counters[N_COUNTERS];
// Of each name of an operation: how often it was launched outside of recordings.
std::map<std::string, int64_t> launches_by_name;
// Of each thing that waits for the device: how often it did.
std::map<std::string, int64_t> waits_by_name;
int device_count = 1;
// How many bytes all devices together have.
std::atomic<int64_t> memory_limit{INT64_MAX};
thread_local int current_device = 0;
thread_local int64_t current_streams[kMostDevices];

// An operation that was recorded, with the tensors of the host that share the device's memory.
struct Operation {
  c10::OperatorHandle op;
  Stack inputs;
  Stack outputs;
};

struct Recording {
  std::vector<Operation> operations;
  // Memory that was allocated by the recording stays with it.
  std::vector<c10::Storage> own;
  std::set<c10::StorageImpl*> own_keys;
  // Memory from elsewhere must be there when the recording is replayed.
  std::map<c10::StorageImpl*, c10::weak_intrusive_ptr<c10::StorageImpl>> others;
  // A device computes nothing while it records: what was in memory that is written to.
  std::map<c10::StorageImpl*, std::pair<c10::Storage, std::string>> before;
  std::string failure;
};

std::recursive_mutex mutex;
using StreamKey = std::pair<int, int64_t>;
std::map<StreamKey, Recording*> capturing;
// An operation that is being computed for a replay or within another is not launched once more.
thread_local std::string last_error;

Recording* current_recording() {
  std::lock_guard<std::recursive_mutex> lock(mutex);
  auto found = capturing.find({current_device, current_streams[current_device]});
  return found == capturing.end() ? nullptr : found->second;
}

void note_wait(const std::string& what) {
  std::lock_guard<std::recursive_mutex> lock(mutex);
  if (auto* recording = current_recording()) {
    recording->failure = what;
    TORCH_CHECK(false, "CUDA error: operation not permitted when stream is capturing: ", what);
  }
  ++counters[SYNCHRONIZATIONS];
  ++waits_by_name[what];
}

// ---- memory

struct Block {
  void* memory;
  size_t size;
};

void free_block(void* context) {
  auto* block = static_cast<Block*>(context);
  counters[ALLOCATED] -= block->size;
  std::free(block->memory);
  delete block;
}

struct DeviceAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    c10::Device device(kCUDA, current_device);
    if (n == 0) return {nullptr, device};
    TORCH_CHECK_WITH(OutOfMemoryError, counters[ALLOCATED] + static_cast<int64_t>(n) <= memory_limit,
                     "CUDA out of memory. Tried to allocate ", n, " bytes.");
    auto* block = new Block{std::malloc(n), n};
    // What is read before it is written is to be seen.
    std::memset(block->memory, 0xFF, n);
    int64_t now = counters[ALLOCATED] += n;
    int64_t peak = counters[PEAK];
    while (now > peak && !counters[PEAK].compare_exchange_weak(peak, now)) {
    }
    return {block->memory, block, &free_block, device};
  }
  void copy_data(void* to, const void* from, size_t n) const override { std::memcpy(to, from, n); }
};

DeviceAllocator allocator;

// Memory of the host that copies need not wait for.
std::set<const void*> pinned;

struct PinnedAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    void* memory = std::malloc(n ? n : 1);
    std::lock_guard<std::recursive_mutex> lock(mutex);
    pinned.insert(memory);
    return {memory, memory, &unpin, c10::Device(c10::kCPU)};
  }
  static void unpin(void* memory) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    pinned.erase(memory);
    std::free(memory);
  }
  void copy_data(void* to, const void* from, size_t n) const override { std::memcpy(to, from, n); }
};

PinnedAllocator pinned_allocator;

bool is_pinned(const Tensor& tensor) {
  std::lock_guard<std::recursive_mutex> lock(mutex);
  return pinned.count(tensor.storage().data()) > 0;
}

struct OnDevice {
  int before = current_device;
  explicit OnDevice(c10::optional<c10::Device> device) {
    int wanted = device && device->has_index() ? device->index() : current_device;
    TORCH_CHECK(wanted < device_count, "CUDA error: invalid device ordinal");
    current_device = wanted;
  }
  ~OnDevice() { current_device = before; }
};

Tensor keep(Tensor made) {
  if (auto* recording = current_recording()) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    recording->own.push_back(made.storage());
    recording->own_keys.insert(made.storage().unsafeGetStorageImpl());
  }
  return made;
}

Tensor empty(at::IntArrayRef size, c10::optional<at::ScalarType> dtype,
             c10::optional<at::Layout>, c10::optional<at::Device> device,
             c10::optional<bool>, c10::optional<at::MemoryFormat> format) {
  OnDevice guard(device);
  return keep(at::detail::empty_generic(size, &allocator, c10::DispatchKeySet(c10::DispatchKey::CUDA),
                                        c10::dtype_or_default(dtype), format));
}

Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride,
                     c10::optional<at::ScalarType> dtype, c10::optional<at::Layout>,
                     c10::optional<at::Device> device, c10::optional<bool>) {
  OnDevice guard(device);
  return keep(at::detail::empty_strided_generic(size, stride, &allocator,
                                                c10::DispatchKeySet(c10::DispatchKey::CUDA),
                                                c10::dtype_or_default(dtype)));
}

// ---- operations

// Return a tensor of the host that shares the memory of one of the device.
Tensor on_host(const Tensor& tensor) {
  auto options = tensor.options().device(c10::kCPU);
  if (tensor.numel() == 0) return at::empty_strided(tensor.sizes(), tensor.strides(), options);
  auto shared = at::from_blob(tensor.data_ptr(), tensor.sizes(), tensor.strides(), options);
  if (tensor.is_conj()) shared._set_conj(true);
  if (tensor.is_neg()) shared._set_neg(true);
  return shared;
}

struct Call {
  const c10::OperatorHandle& op;
  std::vector<std::pair<Tensor, Tensor>> pairs;  // of the device, and its alias
  std::set<int> devices;
  bool has_host_tensor = false;

  // An `out` gets memory of its own, which an operation may resize on the way.
  Tensor translate(const Tensor& tensor, bool is_out = false) {
    if (!tensor.defined()) return tensor;
    if (tensor.device().type() != kCUDA) {
      if (tensor.dim() > 0) has_host_tensor = true;
      return tensor;
    }
    devices.insert(tensor.device().index());
    auto shared = on_host(tensor);
    pairs.emplace_back(tensor, is_out ? at::empty({0}, shared.options()) : shared);
    return pairs.back().second;
  }

  IValue translate(const IValue& value, bool is_out = false) {
    if (value.isTensor()) return translate(value.toTensor(), is_out);
    if (value.isTensorList()) {
      c10::List<Tensor> list;
      for (const Tensor& tensor : value.toTensorVector()) list.push_back(translate(tensor));
      return list;
    }
    if (value.isOptionalTensorList()) {
      c10::List<c10::optional<Tensor>> list;
      for (c10::optional<Tensor> tensor : value.toOptionalTensorList()) {
        list.push_back(tensor ? c10::optional<Tensor>(translate(*tensor)) : tensor);
      }
      return list;
    }
    if (value.isDevice()) return IValue(c10::Device(c10::kCPU));
    return value;
  }
};

void note_outside(Recording* recording, const Tensor& tensor, bool is_written) {
  auto* key = tensor.storage().unsafeGetStorageImpl();
  if (recording->own_keys.count(key)) return;
  if (!recording->others.count(key)) {
    recording->others.emplace(key, tensor.storage().getWeakStorageImpl());
  }
  if (is_written && !recording->before.count(key)) {
    auto* memory = static_cast<const char*>(tensor.storage().data());
    recording->before.emplace(
        key, std::make_pair(tensor.storage(), std::string(memory, tensor.storage().nbytes())));
  }
}

// What makes the host wait: the size of the result depends on values.
bool waits(const std::string& name, const Stack& arguments) {
  static const std::set<std::string> names = {
      "aten::_local_scalar_dense", "aten::nonzero",     "aten::masked_select", "aten::_unique2",
      "aten::unique_dim",          "aten::equal",       "aten::unique_consecutive",
      "aten::repeat_interleave",   "aten::is_nonzero",  "aten::nonzero_static"};
  if (names.count(name)) return true;
  if (name == "aten::index" || name == "aten::_index_put_impl_" || name == "aten::index_put") {
    for (c10::optional<Tensor> index : arguments[1].toOptionalTensorList()) {
      if (!index || !index->defined()) continue;
      bool is_mask = index->scalar_type() == at::kBool || index->scalar_type() == at::kByte;
      if (is_mask || index->device().is_cpu()) return true;
    }
  }
  return false;
}

void launch(const c10::OperatorHandle& op, Stack* stack) {
  const auto& schema = op.schema();
  const std::string& name = schema.name();
  const size_t n_arguments = schema.arguments().size();
  Stack originals(stack->end() - n_arguments, stack->end());
  const bool must_wait = waits(name, originals);
  if (must_wait) note_wait(name);
  Call call{op};
  Stack inputs;
  for (size_t n = 0; n < n_arguments; ++n) {
    const auto& argument = schema.arguments()[n];
    const auto* info = argument.alias_info();
    inputs.push_back(call.translate(originals[n], argument.kwarg_only() && info && info->isWrite()));
  }
  bool takes_host_indices = must_wait && name != "aten::_local_scalar_dense";
  TORCH_CHECK(takes_host_indices || !call.has_host_tensor || call.pairs.empty(), name,
              ": expected all tensors to be on the same device, but found at least two devices, "
              "cuda:", current_device, " and cpu!");
  TORCH_CHECK(call.devices.size() < 2, name,
              ": expected all tensors to be on the same device, but found several CUDA devices");
  OnDevice guard(call.devices.empty()
                     ? c10::optional<c10::Device>()
                     : c10::Device(kCUDA, static_cast<c10::DeviceIndex>(*call.devices.begin())));
  Recording* recording = current_recording();
  if (recording) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    for (size_t n = 0; n < n_arguments; ++n) {
      const auto* info = schema.arguments()[n].alias_info();
      // the schema of batch normalization does not tell that it writes the running numbers
      const bool is_running = name == "aten::native_batch_norm" &&
                              schema.arguments()[n].name().rfind("running", 0) == 0;
      const bool is_written = is_running || (info && info->isWrite());
      std::vector<Tensor> tensors;
      if (originals[n].isTensor()) tensors.push_back(originals[n].toTensor());
      if (originals[n].isTensorList()) tensors = originals[n].toTensorVector();
      if (originals[n].isOptionalTensorList()) {
        for (c10::optional<Tensor> one : originals[n].toOptionalTensorList()) {
          if (one) tensors.push_back(*one);
        }
      }
      for (const auto& tensor : tensors) {
        if (tensor.defined() && tensor.is_cuda()) note_outside(recording, tensor, is_written);
      }
    }
    ++counters[RECORDED];
  } else {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    ++counters[LAUNCHES];
    ++launches_by_name[name];
  }
  Stack outputs = inputs;
  op.callBoxed(&outputs);
  torch::jit::drop(*stack, n_arguments);
  // What was resized takes its place in the device's memory.
  for (auto& [device, host] : call.pairs) {
    if (device.sizes() != host.sizes()) {
      TORCH_CHECK(!recording || !device.numel(),
                  "a recorded operation must not resize a tensor: ", name);
      device.resize_(host.sizes());
    }
    if (device.numel() && device.data_ptr() != host.data_ptr()) on_host(device).copy_(host);
  }
  auto to_device = [&](const Tensor& made) -> Tensor {
    if (!made.defined()) return made;
    for (auto& [device, host] : call.pairs) {
      if (made.is_same(host)) return device;
      TORCH_CHECK(!made.numel() || !host.numel() || !made.storage().is_alias_of(host.storage()),
                  name, " is a view that the simulated device does not know");
    }
    auto out = empty_strided(made.sizes(), made.strides(), made.scalar_type(), c10::nullopt,
                             c10::Device(kCUDA, current_device), c10::nullopt);
    if (made.numel()) on_host(out).copy_(made);
    return out;
  };
  Stack results;
  for (const auto& value : outputs) {
    if (value.isTensor()) {
      results.emplace_back(to_device(value.toTensor()));
    } else if (value.isTensorList()) {
      c10::List<Tensor> list;
      for (const Tensor& tensor : value.toTensorVector()) list.push_back(to_device(tensor));
      results.emplace_back(list);
    } else {
      results.push_back(value);
    }
  }
  if (recording) {
    Call again{op};
    Stack places;
    for (const auto& value : results) places.push_back(again.translate(value));
    std::lock_guard<std::recursive_mutex> lock(mutex);
    recording->operations.push_back({op, inputs, places});
  }
  for (auto& value : results) stack->push_back(value);
}

void write_results(const IValue& place, const IValue& found) {
  auto write = [](const Tensor& to, const Tensor& from) {
    if (to.defined() && to.numel() && to.data_ptr() != from.data_ptr()) to.copy_(from);
  };
  if (place.isTensor()) write(place.toTensor(), found.toTensor());
  if (place.isTensorList()) {
    auto to = place.toTensorVector(), from = found.toTensorVector();
    for (size_t n = 0; n < to.size(); ++n) write(to[n], from[n]);
  }
}

Tensor& copy_(Tensor& self, const Tensor& src, bool non_blocking) {
  const bool is_upload = src.device().is_cpu();
  const bool is_download = self.device().is_cpu();
  Recording* recording = current_recording();
  if (is_upload || is_download) {
    if (recording) note_wait("a copy between host and device");
    if (is_upload) ++counters[UPLOADS];
    // From pageable memory the driver takes a copy at once, of so much; to it it writes in time.
    const bool is_small = src.nbytes() <= 1 << 16;
    const bool is_free = non_blocking && (is_upload ? is_small || is_pinned(src) : is_pinned(self));
    if (!is_free) note_wait(is_upload ? "an upload" : "a download");
  } else if (!recording) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    ++counters[LAUNCHES];
    ++launches_by_name["aten::copy_"];
  }
  if (!self.numel()) return self;
  Tensor to = is_download ? self : on_host(self);
  Tensor from = is_upload ? src : on_host(src);
  if (recording) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    note_outside(recording, self, true);
    note_outside(recording, src, false);
    ++counters[RECORDED];
    static auto op = c10::Dispatcher::singleton().findSchemaOrThrow("aten::copy_", "");
    recording->operations.push_back({op, {to, from, non_blocking}, {to}});
  }
  to.copy_(from);
  return self;
}

const Tensor& resize_(const Tensor& self, at::IntArrayRef size,
                      c10::optional<at::MemoryFormat> format) {
  OnDevice guard(self.device());
  return at::native::resize_(self, size, format);
}

Tensor& set_storage(Tensor& self, at::Storage source, int64_t offset, at::IntArrayRef size,
                    at::IntArrayRef stride) {
  return at::native::set_storage_cpu_(self, source, offset, size, stride);
}

Tensor& set_source(Tensor& self, at::Storage source) {
  return at::native::set_(self, source);
}

// A processor has no products of half precision with sums of float32.
Tensor bmm_with_type(const Tensor& self, const Tensor& other, at::ScalarType dtype) {
  return at::bmm(self.to(dtype), other.to(dtype));
}

TORCH_LIBRARY_IMPL(_, CUDA, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&launch>());
}

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("copy_", copy_);
  if (c10::Dispatcher::singleton().findSchema({"aten::bmm", "dtype"})) {
    m.impl("bmm.dtype", bmm_with_type);
  }
  m.impl("resize_", resize_);
  m.impl("as_strided", at::native::as_strided_tensorimpl);
  m.impl("view", at::native::view);
  m.impl("_reshape_alias", at::native::_reshape_alias);
  m.impl("unfold", at::native::unfold);
  m.impl("set_.source_Storage_storage_offset", set_storage);
  m.impl("set_.source_Storage", set_source);
  m.impl("set_.source_Tensor", at::native::set_tensor_);
}

// ---- streams and devices, as torch's own code asks for them

struct DeviceGuard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kCUDA; }
  c10::Device exchangeDevice(c10::Device d) const override {
    auto before = getDevice();
    setDevice(d);
    return before;
  }
  c10::Device getDevice() const override {
    return c10::Device(kCUDA, static_cast<c10::DeviceIndex>(current_device));
  }
  void setDevice(c10::Device d) const override {
    if (d.has_index()) current_device = d.index();
  }
  void uncheckedSetDevice(c10::Device d) const noexcept override { setDevice(d); }
  c10::Stream getStream(c10::Device d) const override {
    int index = d.has_index() ? d.index() : current_device;
    return c10::Stream(c10::Stream::UNSAFE, c10::Device(kCUDA, index), current_streams[index]);
  }
  c10::Stream getDefaultStream(c10::Device d) const override {
    return c10::Stream(c10::Stream::DEFAULT, d);
  }
  c10::Stream exchangeStream(c10::Stream s) const override {
    auto before = getStream(s.device());
    current_streams[s.device_index()] = s.id();
    return before;
  }
  c10::DeviceIndex deviceCount() const noexcept override { return kMostDevices; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex,
              const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override { note_wait("a stream"); }
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}
};

C10_REGISTER_GUARD_IMPL(CUDA, DeviceGuard);

struct CUDAHooks : at::CUDAHooksInterface {
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return device_count; }
  c10::DeviceIndex current_device() const override { return current_device_now(); }
  c10::DeviceIndex getCurrentDevice() const override { return current_device_now(); }
  int getNumGPUs() const override { return device_count; }
  bool isPinnedPtr(const void* memory) const override {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    return pinned.count(memory) > 0;
  }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator; }
  static c10::DeviceIndex current_device_now() {
    return static_cast<c10::DeviceIndex>(::current_device);
  }
};

}  // namespace

namespace at {
using ::CUDAHooks;
REGISTER_CUDA_HOOKS(CUDAHooks)
}  // namespace at

namespace {

struct SetUp {
  SetUp() { c10::SetAllocator(kCUDA, &allocator); }
} set_up;

std::string describe(const std::map<std::string, int64_t>& counts) {
  std::string text;
  for (const auto& [name, n] : counts) text += name + " " + std::to_string(n) + "\n";
  return text;
}

}  // namespace

// ---- what device.py calls

extern "C" {

void sim_reset_peak() { counters[PEAK] = counters[ALLOCATED].load(); }
void sim_set_memory_limit(int64_t n_bytes) { memory_limit = n_bytes; }
int sim_is_recording() { return current_recording() != nullptr; }
void sim_set_device_count(int n) { device_count = n; }
int sim_device() { return current_device; }
void sim_set_device(int device) { current_device = device; }
int64_t sim_stream(int device) { return current_streams[device]; }
void sim_set_stream(int device, int64_t stream) { current_streams[device] = stream; }
int64_t sim_counter(int which) { return counters[which]; }
const char* sim_last_error() { return last_error.c_str(); }

void sim_reset() {
  std::lock_guard<std::recursive_mutex> lock(mutex);
  for (int n = 0; n < ALLOCATED; ++n) counters[n] = 0;
  counters[PEAK] = counters[ALLOCATED].load();
  launches_by_name.clear();
  waits_by_name.clear();
}

const char* sim_describe(int waits) {
  static thread_local std::string text;
  std::lock_guard<std::recursive_mutex> lock(mutex);
  text = describe(waits ? waits_by_name : launches_by_name);
  return text.c_str();
}

// Note that the host waits; return whether that is an error.
int sim_wait(const char* what, int for_all_streams) {
  std::lock_guard<std::recursive_mutex> lock(mutex);
  try {
    if (for_all_streams && !capturing.empty()) {
      for (auto& [key, recording] : capturing) recording->failure = what;
      TORCH_CHECK(false, "CUDA error: operation not permitted when stream is capturing: ", what);
    }
    note_wait(what);
  } catch (const std::exception& error) {
    last_error = error.what();
    return 1;
  }
  return 0;
}

void* sim_begin_recording() {
  std::lock_guard<std::recursive_mutex> lock(mutex);
  auto& slot = capturing[{current_device, current_streams[current_device]}];
  if (slot) return nullptr;
  slot = new Recording;
  return slot;
}

// End the recording of a stream, and give memory back what it held; return whether it succeeded.
int sim_end_recording(void* handle, int device, int64_t stream) {
  std::lock_guard<std::recursive_mutex> lock(mutex);
  auto* recording = static_cast<Recording*>(handle);
  capturing.erase({device, stream});
  for (auto& [key, saved] : recording->before) {
    std::memcpy(saved.first.mutable_data(), saved.second.data(), saved.second.size());
  }
  recording->before.clear();
  last_error = recording->failure;
  return recording->failure.empty() ? 0 : 1;
}

int64_t sim_recording_size(void* handle) {
  return static_cast<Recording*>(handle)->operations.size();
}

int sim_replay(void* handle) {
  auto* recording = static_cast<Recording*>(handle);
  try {
    TORCH_CHECK(!current_recording(), "CUDA error: a replay in a recording");
    for (auto& [key, storage] : recording->others) {
      TORCH_CHECK(!storage.expired(), "CUDA error: an illegal memory access was encountered: a "
                                      "recording reads memory that was freed");
    }
    ++counters[REPLAYS];
    ++counters[LAUNCHES];
    at::AutoDispatchBelowADInplaceOrView below;
    for (auto& operation : recording->operations) {
      Stack stack = operation.inputs;
      operation.op.callBoxed(&stack);
      for (size_t n = 0; n < operation.outputs.size(); ++n) {
        write_results(operation.outputs[n], stack[n]);
      }
    }
  } catch (const std::exception& error) {
    last_error = error.what();
    return 1;
  }
  return 0;
}

void sim_delete_recording(void* handle) {
  std::lock_guard<std::recursive_mutex> lock(mutex);
  auto* recording = static_cast<Recording*>(handle);
  for (auto it = capturing.begin(); it != capturing.end();) {
    it = it->second == recording ? capturing.erase(it) : std::next(it);
  }
  delete recording;
}
}
