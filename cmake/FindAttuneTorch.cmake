# Finds LibTorch and defines attune::torch.
# Debian's package by default; with ATTUNE_TORCH_WHEEL=<site-packages>, a PyPI wheel, whose own CMake files
# want a CUDA toolkit: its headers and two libraries are taken directly.
add_library(attune_torch INTERFACE)
add_library(attune::torch ALIAS attune_torch)
if(ATTUNE_TORCH_WHEEL)
  set(_root ${ATTUNE_TORCH_WHEEL}/torch)
  if(NOT EXISTS ${_root}/lib/libtorch_cpu.so)
    message(FATAL_ERROR "ATTUNE_TORCH_WHEEL=${ATTUNE_TORCH_WHEEL}: no torch/lib/libtorch_cpu.so there; "
                        "pass the site-packages folder that holds torch/")
  endif()
  # -idirafter: the wheel ships headers of other oneDNN and fmt versions; ours must win.
  target_compile_options(attune_torch INTERFACE
    "SHELL:-idirafter ${_root}/include" "SHELL:-idirafter ${_root}/include/torch/csrc/api/include")
  target_link_libraries(attune_torch INTERFACE ${_root}/lib/libtorch_cpu.so ${_root}/lib/libc10.so)
  file(GLOB _cuda_libs ${ATTUNE_TORCH_WHEEL}/nvidia/*/lib)
  set(_rpath ${_root}/lib ${_cuda_libs})
  target_link_options(attune_torch INTERFACE -Wl,--allow-shlib-undefined)
  foreach(dir IN LISTS _rpath)
    target_link_options(attune_torch INTERFACE -Wl,-rpath,${dir})
  endforeach()
  file(STRINGS ${_root}/version.py _version REGEX "^__version__")
  message(STATUS "LibTorch from the wheel: ${_version}")
else()
  find_path(_torch_include ATen/ATen.h REQUIRED)
  find_library(_torch_cpu torch_cpu REQUIRED)
  find_library(_torch_c10 c10 REQUIRED)
  target_link_libraries(attune_torch INTERFACE ${_torch_cpu} ${_torch_c10})
  message(STATUS "LibTorch: ${_torch_cpu}")
endif()
set(AttuneTorch_FOUND TRUE)
