#!/bin/bash
# Notes what the service wrapper and the jobs need of the environment of the configuration.
names=(LANG JAVA_HOME ANT_HOME M2_HOME ANDROID_HOME ANDROID_SDK_ROOT GRADLE_HOME NVM_BIN NVM_PATH LD_LIBRARY_PATH PERL5LIB)
touch .env
for name in "${names[@]}"; do
    if [ -n "${!name}" ] && ! grep -q "^$name=" .env; then
        echo "$name=${!name}" >>.env
    fi
done
echo "$PATH" >.path
