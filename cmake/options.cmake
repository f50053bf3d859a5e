# Compiler settings shared by every target.
option(ATTUNE_TESTS "Build the tests" ON)
option(ATTUNE_BENCH "Build the benchmarks" OFF)
option(ATTUNE_WERROR "Treat warnings as errors" ON)
set(ATTUNE_UNITY 8 CACHE STRING "Sources compiled together: headers are read once for all of them (0: all of a library; 1: one by one)")
set(ATTUNE_SANITIZE "" CACHE STRING "Sanitizers, comma separated (address,undefined | thread)")
set(ATTUNE_TORCH_WHEEL "" CACHE PATH "site-packages of a PyPI torch to build against instead of Debian's LibTorch")

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)

add_compile_options(-Wall -Wextra $<$<BOOL:${ATTUNE_WERROR}>:-Werror>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 reports these inside its own standard library headers.
  add_compile_options(-Wno-restrict -Wno-maybe-uninitialized -Wno-array-bounds -Wno-stringop-overflow)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 16)
  # Older clangs make the members of libstdc++ 12's constexpr std::vector as soon as they see a class that holds
  # one, which LibTorch's headers do with an incomplete type; in the headers of libstdc++ 11 it is not constexpr.
  file(GLOB eleven /usr/include/c++/11 /usr/include/*/c++/11 /usr/include/c++/11/backward)
  if(NOT eleven)
    message(FATAL_ERROR "clang ${CMAKE_CXX_COMPILER_VERSION} needs the headers of libstdc++ 11: apt-get install libstdc++-11-dev")
  endif()
  add_compile_options(-nostdinc++)
  foreach(folder IN LISTS eleven)
    add_compile_options("SHELL:-isystem ${folder}")
  endforeach()
endif()
if(ATTUNE_SANITIZE)
  add_compile_options(-fsanitize=${ATTUNE_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${ATTUNE_SANITIZE})
endif()

if(NOT ATTUNE_UNITY EQUAL 1)
  set(CMAKE_UNITY_BUILD ON)
  set(CMAKE_UNITY_BUILD_BATCH_SIZE ${ATTUNE_UNITY})
endif()

find_program(ATTUNE_CCACHE ccache)
if(ATTUNE_CCACHE)
  # The precompiled header is part of the key by content, not by time stamp; paths are relative to the
  # checkout, so that a second clone finds what the first one compiled.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
      CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${ATTUNE_CCACHE})
endif()
find_program(ATTUNE_MOLD mold)
if(ATTUNE_MOLD)
  add_link_options(-fuse-ld=mold)
endif()
